// SPDX-License-Identifier: Apache-2.0
// Every kernel call that the library makes: its name in errors, and the errnos that the kernel can return.
#pragma once

#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <array>
#include <cerrno>
#include <string_view>
#include <vector>

namespace postern::test {

// The kind of an fd. The meaning of an ioctl number depends on it: 113 is VFIO_DEVICE_PCI_HOT_RESET of a device and
// VFIO_IOMMU_MAP_DMA of a container. A container becomes type1 or spapr when its IOMMU is set.
enum class Node { none, container, type1, spapr, group, device, iommufd };

struct CallErrnos {
  Node node;
  unsigned long request;   // of an ioctl; 0 for other calls
  std::string_view name;   // as in an Error's operation
  std::array<int, 9> all;  // the likeliest first; padded with zeros
};

#define POSTERN_CALL(request) request, #request

// From the source of Linux 7.3; sPAPR from 6.12 and 7.3. Only for calls as the library makes them: omits EFAULT for its
// own arguments, and EINVAL for unknown flags or wrong sizes.
inline constexpr std::array ioctl_errnos = {
    // vfio_fops_unl_ioctl. Neither fails by itself; errnos_of() adds the errnos of any ioctl.
    CallErrnos{Node::container, POSTERN_CALL(VFIO_GET_API_VERSION), {}},
    CallErrnos{Node::container, POSTERN_CALL(VFIO_CHECK_EXTENSION), {}},
    // vfio_ioctl_set_iommu; vfio_iommu_type1_attach_group (EPERM: unsafe interrupts), tce_iommu_attach_group
    CallErrnos{Node::container, POSTERN_CALL(VFIO_SET_IOMMU), {EPERM, EINVAL, ENODEV, ENOMEM, EBUSY}},

    CallErrnos{Node::type1, POSTERN_CALL(VFIO_IOMMU_GET_INFO), {ENOMEM, EINVAL}},  // vfio_iommu_iova_build_caps
    // vfio_dma_do_map, vfio_pin_pages_remote, vfio_lock_acct, vfio_iommu_map
    CallErrnos{Node::type1, POSTERN_CALL(VFIO_IOMMU_MAP_DMA), {ENOMEM, EFAULT, EEXIST, ENOSPC, EINVAL, EOVERFLOW}},
    CallErrnos{Node::type1, POSTERN_CALL(VFIO_IOMMU_UNMAP_DMA), {EINVAL, EBUSY, EOVERFLOW}},  // vfio_dma_do_unmap
    // vfio_iommu_type1_dirty_pages, vfio_dma_bitmap_alloc_all
    CallErrnos{Node::type1, POSTERN_CALL(VFIO_IOMMU_DIRTY_PAGES), {ENOMEM, EINVAL, EACCES, EOVERFLOW}},

    // tce_iommu_ioctl. EPERM also if another process created the container (tce_iommu_mm_set).
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_SPAPR_TCE_GET_INFO), {ENXIO, EPERM}},
    // tce_iommu_create_default_window, tce_iommu_build, tce_iommu_build_v2, tce_iommu_use_page
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_MAP_DMA), {EFAULT, ENOMEM, EPERM, ENXIO, ENODEV, EINVAL, EBUSY}},
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_UNMAP_DMA), {ENXIO, EPERM, ENODEV, ENOMEM, EINVAL}},
    // tce_iommu_register_pages, mm_iommu_do_alloc, account_locked_vm
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_SPAPR_REGISTER_MEMORY), {ENOMEM, EFAULT, EBUSY, EPERM, EINVAL}},
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY), {EBUSY, ENOENT, EPERM}},
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_ENABLE), {ENOMEM, EBUSY, ENODEV, EPERM}},  // tce_iommu_enable
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_DISABLE), {EPERM}},
    // tce_iommu_create_window, tce_iommu_find_free_table, tce_iommu_create_table, spapr_tce_create_table
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_SPAPR_TCE_CREATE), {ENOMEM, EPERM, ENOSPC, ENODEV, EINVAL, ENXIO}},
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_IOMMU_SPAPR_TCE_REMOVE), {EPERM, EINVAL, ENXIO}},
    // vfio_spapr_ioctl_eeh_pe_op; EIO: the firmware (pseries_eeh_call_reset and its kin)
    CallErrnos{Node::spapr, POSTERN_CALL(VFIO_EEH_PE_OP), {EIO, ENODEV, EINVAL}},

    // vfio_group_fops_unl_ioctl. ENODEV: its driver was unbound.
    CallErrnos{Node::group, POSTERN_CALL(VFIO_GROUP_GET_STATUS), {ENODEV}},
    // vfio_group_ioctl_set_container, vfio_container_attach_group; the attach_group of either IOMMU
    CallErrnos{
        Node::group, POSTERN_CALL(VFIO_GROUP_SET_CONTAINER), {EBUSY, EPERM, EINVAL, EBADF, EBADFD, ENODEV, ENOMEM}},
    CallErrnos{Node::group, POSTERN_CALL(VFIO_GROUP_UNSET_CONTAINER), {EBUSY, EINVAL}},
    // vfio_group_ioctl_get_device_fd, vfio_device_open_file, vfio_pci_core_enable; EACCES: a VF's token
    // (vfio_pci_validate_vf_token)
    CallErrnos{Node::group,
               POSTERN_CALL(VFIO_GROUP_GET_DEVICE_FD),
               {ENODEV, EMFILE, EACCES, EPERM, EBUSY, EINVAL, EIO, ENOMEM, ENFILE}},

    CallErrnos{Node::device, POSTERN_CALL(VFIO_DEVICE_GET_INFO), {ENOMEM, EINVAL}},         // vfio_pci_ioctl_get_info
    CallErrnos{Node::device, POSTERN_CALL(VFIO_DEVICE_GET_REGION_INFO), {ENOMEM, EINVAL}},  // vfio_get_region_info
    CallErrnos{Node::device, POSTERN_CALL(VFIO_DEVICE_GET_IRQ_INFO), {EINVAL}},  // vfio_pci_ioctl_get_irq_info
    // vfio_pci_set_irqs_ioctl, eventfd_ctx_fdget, request_irq, pci_alloc_irq_vectors
    CallErrnos{
        Node::device, POSTERN_CALL(VFIO_DEVICE_SET_IRQS), {ENOMEM, EINVAL, ENOTTY, ENODEV, EBUSY, ENOSPC, EBADF}},
    // vfio_pci_ioeventfd, vfio_virqfd_enable
    CallErrnos{Node::device, POSTERN_CALL(VFIO_DEVICE_IOEVENTFD), {ENOMEM, EINVAL, ENOTTY, EEXIST, ENOSPC, EBADF}},
    CallErrnos{Node::device, POSTERN_CALL(VFIO_DEVICE_RESET), {ENOTTY, EINVAL, EAGAIN}},  // pci_try_reset_function
    // vfio_pci_fill_devs
    CallErrnos{Node::device,
               POSTERN_CALL(VFIO_DEVICE_GET_PCI_HOT_RESET_INFO),
               {ENODEV, EAGAIN, ENOSPC, EPERM, ENOMEM, ERANGE}},
    // vfio_pci_dev_set_hot_reset, pci_reset_bus
    CallErrnos{
        Node::device, POSTERN_CALL(VFIO_DEVICE_PCI_HOT_RESET), {EINVAL, EBUSY, EAGAIN, ENODEV, ENOTTY, EBADF, ENOMEM}},
    // vfio_ioctl_device_feature, vfio_ioctl_device_feature_logging_start, vfio_pci_core_feature_dma_buf
    CallErrnos{
        Node::device, POSTERN_CALL(VFIO_DEVICE_FEATURE), {ENOTTY, EINVAL, E2BIG, ENOMEM, EOVERFLOW, ENODEV, EMFILE}},
    // vfio_df_ioctl_bind_iommufd, iommufd_device_bind, vfio_pci_core_enable
    CallErrnos{Node::device,
               POSTERN_CALL(VFIO_DEVICE_BIND_IOMMUFD),
               {EBUSY, EPERM, EINVAL, EACCES, ENODEV, EBADF, EBADFD, ENOMEM}},
    // vfio_df_ioctl_attach_pt, iommufd_hw_pagetable_attach
    CallErrnos{Node::device,
               POSTERN_CALL(VFIO_DEVICE_ATTACH_IOMMUFD_PT),
               {ENOMEM, EINVAL, EBUSY, ENOENT, ENODEV, EPERM, EADDRINUSE}},
    CallErrnos{Node::device, POSTERN_CALL(VFIO_DEVICE_DETACH_IOMMUFD_PT), {EINVAL}},

    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_IOAS_ALLOC), {ENOMEM}},                  // iommufd_ioas_alloc_ioctl
    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_IOAS_IOVA_RANGES), {ENOENT, EMSGSIZE}},  // iommufd_ioas_iova_ranges
    // iommufd_ioas_map, iopt_map_user_pages, pfn_reader_user_pin
    CallErrnos{Node::iommufd,
               POSTERN_CALL(IOMMU_IOAS_MAP),
               {ENOMEM, EFAULT, EEXIST, EADDRINUSE, EINVAL, EOVERFLOW, ENOENT, EPERM}},
    // iommufd_ioas_map_file, iopt_map_file_pages, memfd_pin_folios; ENOTTY before 6.14
    CallErrnos{Node::iommufd,
               POSTERN_CALL(IOMMU_IOAS_MAP_FILE),
               {EINVAL, EOVERFLOW, EEXIST, ENOMEM, EBADF, EOPNOTSUPP, EADDRINUSE, ENOTTY, ENODEV}},
    // iommufd_ioas_copy, iopt_get_pages, iopt_map_pages
    CallErrnos{
        Node::iommufd, POSTERN_CALL(IOMMU_IOAS_COPY), {ENOMEM, ENOENT, EEXIST, EPERM, EINVAL, EOVERFLOW, ENOTTY}},
    // iommufd_ioas_unmap, iopt_unmap_iova_range
    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_IOAS_UNMAP), {EBUSY, ENOENT, ENOMEM, EDEADLK}},
    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_OPTION), {EOPNOTSUPP, ENOENT, EINVAL}},  // iommufd_ioas_option
    // iommufd_hwpt_alloc, iommufd_hwpt_paging_alloc, iopt_table_add_domain
    CallErrnos{Node::iommufd,
               POSTERN_CALL(IOMMU_HWPT_ALLOC),
               {ENOMEM, EOPNOTSUPP, ENOENT, EINVAL, ENODEV, EPERM, EADDRINUSE, EBUSY}},
    // iommufd_hwpt_set_dirty_tracking, iopt_set_dirty_tracking
    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_HWPT_SET_DIRTY_TRACKING), {ENOMEM, EOPNOTSUPP, EINVAL, ENOENT}},
    // iommufd_hwpt_get_dirty_bitmap, iommufd_check_iova_range
    CallErrnos{
        Node::iommufd, POSTERN_CALL(IOMMU_HWPT_GET_DIRTY_BITMAP), {EINVAL, ENOMEM, EOPNOTSUPP, ENOENT, EOVERFLOW}},
    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_GET_HW_INFO), {EOPNOTSUPP, ENOENT}},  // iommufd_get_hw_info
    CallErrnos{Node::iommufd, POSTERN_CALL(IOMMU_DESTROY), {EBUSY, ENOENT}},           // iommufd_object_remove
};

#undef POSTERN_CALL

// By the function of Kernel. `name` is as in errors.
struct FunctionErrnos {
  std::string_view function;
  std::string_view name;
  std::array<int, 9> all;
};
inline constexpr std::array function_errnos = {
    // vfio_group_fops_open, vfio_device_fops_cdev_open, misc_open, do_sys_openat2
    FunctionErrnos{"open", "open", {EBUSY, ENOENT, ENXIO, ENODEV, EACCES, EPERM, EMFILE, ENFILE, ENOMEM}},
    FunctionErrnos{"pread", "pread", {EIO, EINVAL, ENOMEM, ENODEV}},    // vfio_pci_rw, vfio_pci_bar_rw
    FunctionErrnos{"pwrite", "pwrite", {EIO, EINVAL, ENOMEM, ENODEV}},  // the same
    FunctionErrnos{"mmap", "mmap", {ENOMEM, EINVAL, EAGAIN, EPERM}},    // vfio_pci_core_mmap, do_mmap
    FunctionErrnos{"memfd_create", "memfd_create", {EMFILE, ENFILE, ENOMEM, EPERM}},
    FunctionErrnos{"fallocate", "fallocate", {ENOMEM, ENOSPC, EPERM}},  // shmem_fallocate, hugetlbfs_fallocate
    FunctionErrnos{"ftruncate", "ftruncate", {ENOMEM, EPERM, EFBIG}},   // shmem_setattr, hugetlbfs_setattr
    FunctionErrnos{"fstat", "fstat", {EBADF, EOVERFLOW}},
    FunctionErrnos{"lseek", "lseek", {EINVAL, EOVERFLOW}},
    FunctionErrnos{"fcntl", "fcntl", {EBADF, EINVAL}},              // memfd_get_seals
    FunctionErrnos{"madvise", "madvise", {ENOMEM, EFAULT, EINTR}},  // madvise_populate
    FunctionErrnos{"eventfd", "eventfd", {EMFILE, ENFILE, ENOMEM}},
    FunctionErrnos{"read_file", "read", {ENOENT, EACCES, EIO, EMFILE}},
    FunctionErrnos{"write_file", "write", {EACCES, EBUSY, ENODEV, EINVAL, EIO}},  // sysfs_kf_write, drivers
    FunctionErrnos{"list_directory", "opendir", {ENOENT, EACCES, EMFILE}},
    FunctionErrnos{"read_link", "readlink", {ENOENT, EACCES}},
    FunctionErrnos{"status", "stat", {ENOENT, EACCES}},
    FunctionErrnos{"access", "access", {EACCES, ENOENT}},
};

// A call that was made, and the errnos with which a test can fail it.
struct NamedCall {
  std::string_view name;
  std::vector<int> errnos;  // none: the table has no such call
};

[[nodiscard]] inline std::vector<int> without_zeros(const std::array<int, 9>& all) {
  std::vector<int> errnos;
  for (const int code : all) {
    if (code != 0) errnos.push_back(code);
  }
  return errnos;
}

[[nodiscard]] inline NamedCall named_call(std::string_view function, Node node, unsigned long request) {
  for (const FunctionErrnos& row : function_errnos) {
    if (row.function == function) return {.name = row.name, .errnos = without_zeros(row.all)};
  }
  const bool has_iommu = node == Node::type1 || node == Node::spapr;
  for (const CallErrnos& row : ioctl_errnos) {
    const bool is_on = row.node == node || (has_iommu && row.node == Node::container);
    if (!is_on || row.request != request) continue;
    NamedCall call{.name = row.name, .errnos = without_zeros(row.all)};
    // The device could not be resumed (vfio_device_pm_runtime_get).
    if (node == Node::device && request != VFIO_DEVICE_BIND_IOMMUFD) call.errnos.push_back(EIO);
    // Any ioctl can fail in a security module (security_file_ioctl); some ioctls cannot fail otherwise.
    if (call.errnos.empty()) call.errnos.push_back(EACCES);
    return call;
  }
  return {};
}

}  // namespace postern::test
