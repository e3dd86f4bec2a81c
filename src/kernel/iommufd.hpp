// SPDX-License-Identifier: Apache-2.0
// The ioctls of /dev/iommu that postern uses.
#pragma once

#include <linux/iommufd.h>

#include "kernel/ioctl.hpp"

namespace postern::iommu {

inline constexpr Ioctl<iommu_destroy> destroy POSTERN_IOCTL(IOMMU_DESTROY);
inline constexpr Ioctl<iommu_ioas_alloc> ioas_alloc POSTERN_IOCTL(IOMMU_IOAS_ALLOC);
inline constexpr Ioctl<iommu_ioas_iova_ranges> ioas_iova_ranges POSTERN_IOCTL(IOMMU_IOAS_IOVA_RANGES);
inline constexpr Ioctl<iommu_ioas_map> ioas_map POSTERN_IOCTL(IOMMU_IOAS_MAP);
inline constexpr Ioctl<iommu_ioas_map_file> ioas_map_file POSTERN_IOCTL(IOMMU_IOAS_MAP_FILE);
inline constexpr Ioctl<iommu_ioas_copy> ioas_copy POSTERN_IOCTL(IOMMU_IOAS_COPY);
inline constexpr Ioctl<iommu_ioas_unmap> ioas_unmap POSTERN_IOCTL(IOMMU_IOAS_UNMAP);
inline constexpr Ioctl<iommu_option> option POSTERN_IOCTL(IOMMU_OPTION);
inline constexpr Ioctl<iommu_hwpt_alloc> hwpt_alloc POSTERN_IOCTL(IOMMU_HWPT_ALLOC);
inline constexpr Ioctl<iommu_hwpt_set_dirty_tracking> hwpt_set_dirty_tracking
    POSTERN_IOCTL(IOMMU_HWPT_SET_DIRTY_TRACKING);
inline constexpr Ioctl<iommu_hwpt_get_dirty_bitmap> hwpt_get_dirty_bitmap POSTERN_IOCTL(IOMMU_HWPT_GET_DIRTY_BITMAP);
inline constexpr Ioctl<iommu_hw_info> get_hw_info POSTERN_IOCTL(IOMMU_GET_HW_INFO);

}  // namespace postern::iommu
