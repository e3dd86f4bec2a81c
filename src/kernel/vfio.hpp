// SPDX-License-Identifier: Apache-2.0
// The VFIO ioctls that postern uses. They mean different things on different fds: container, group or device.
#pragma once

#include <linux/vfio.h>

#include "kernel/ioctl.hpp"

namespace postern::vfio {

// On /dev/vfio/vfio, the container.
inline constexpr IoctlByValue get_api_version POSTERN_IOCTL(VFIO_GET_API_VERSION);
inline constexpr IoctlByValue check_extension POSTERN_IOCTL(VFIO_CHECK_EXTENSION);
inline constexpr IoctlByValue set_iommu POSTERN_IOCTL(VFIO_SET_IOMMU);
inline constexpr Ioctl<vfio_iommu_type1_info> iommu_get_info POSTERN_IOCTL(VFIO_IOMMU_GET_INFO);
inline constexpr Ioctl<vfio_iommu_type1_dma_map> iommu_map_dma POSTERN_IOCTL(VFIO_IOMMU_MAP_DMA);
inline constexpr Ioctl<vfio_iommu_type1_dma_unmap> iommu_unmap_dma POSTERN_IOCTL(VFIO_IOMMU_UNMAP_DMA);
inline constexpr Ioctl<vfio_iommu_type1_dirty_bitmap> iommu_dirty_pages POSTERN_IOCTL(VFIO_IOMMU_DIRTY_PAGES);

// On /dev/vfio/N, a group.
inline constexpr Ioctl<vfio_group_status> group_get_status POSTERN_IOCTL(VFIO_GROUP_GET_STATUS);
inline constexpr Ioctl<const int> group_set_container POSTERN_IOCTL(VFIO_GROUP_SET_CONTAINER);
inline constexpr IoctlByValue group_unset_container POSTERN_IOCTL(VFIO_GROUP_UNSET_CONTAINER);
inline constexpr Ioctl<const char> group_get_device_fd POSTERN_IOCTL(VFIO_GROUP_GET_DEVICE_FD);

// On a device, from a group or a cdev.
inline constexpr Ioctl<vfio_device_info> device_get_info POSTERN_IOCTL(VFIO_DEVICE_GET_INFO);
inline constexpr Ioctl<vfio_region_info> device_get_region_info POSTERN_IOCTL(VFIO_DEVICE_GET_REGION_INFO);
inline constexpr Ioctl<vfio_irq_info> device_get_irq_info POSTERN_IOCTL(VFIO_DEVICE_GET_IRQ_INFO);
inline constexpr Ioctl<vfio_irq_set> device_set_irqs POSTERN_IOCTL(VFIO_DEVICE_SET_IRQS);
inline constexpr Ioctl<vfio_device_ioeventfd> device_ioeventfd POSTERN_IOCTL(VFIO_DEVICE_IOEVENTFD);
inline constexpr IoctlByValue device_reset POSTERN_IOCTL(VFIO_DEVICE_RESET);
inline constexpr Ioctl<vfio_pci_hot_reset_info> device_get_pci_hot_reset_info
    POSTERN_IOCTL(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO);
inline constexpr Ioctl<vfio_pci_hot_reset> device_pci_hot_reset POSTERN_IOCTL(VFIO_DEVICE_PCI_HOT_RESET);
inline constexpr Ioctl<vfio_device_feature> device_feature POSTERN_IOCTL(VFIO_DEVICE_FEATURE);

// On a cdev, /dev/vfio/devices/vfioN.
inline constexpr Ioctl<vfio_device_bind_iommufd> device_bind_iommufd POSTERN_IOCTL(VFIO_DEVICE_BIND_IOMMUFD);
inline constexpr Ioctl<vfio_device_attach_iommufd_pt> device_attach_pt POSTERN_IOCTL(VFIO_DEVICE_ATTACH_IOMMUFD_PT);
inline constexpr Ioctl<vfio_device_detach_iommufd_pt> device_detach_pt POSTERN_IOCTL(VFIO_DEVICE_DETACH_IOMMUFD_PT);

}  // namespace postern::vfio
