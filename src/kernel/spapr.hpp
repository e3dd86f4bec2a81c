// SPDX-License-Identifier: Apache-2.0
// The ioctls of sPAPR containers. Some share their number with ioctls of type1 (GET_INFO; REGISTER_MEMORY and
// DIRTY_PAGES), so VFIO_CHECK_EXTENSION must tell them apart, never a trial.
#pragma once

#include "kernel/vfio.hpp"

namespace postern::spapr {

inline constexpr Ioctl<vfio_iommu_spapr_tce_info> tce_get_info POSTERN_IOCTL(VFIO_IOMMU_SPAPR_TCE_GET_INFO);
inline constexpr IoctlByValue enable POSTERN_IOCTL(VFIO_IOMMU_ENABLE);
inline constexpr IoctlByValue disable POSTERN_IOCTL(VFIO_IOMMU_DISABLE);
inline constexpr Ioctl<vfio_iommu_spapr_register_memory> register_memory
    POSTERN_IOCTL(VFIO_IOMMU_SPAPR_REGISTER_MEMORY);
inline constexpr Ioctl<vfio_iommu_spapr_register_memory> unregister_memory
    POSTERN_IOCTL(VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY);
inline constexpr Ioctl<vfio_iommu_spapr_tce_create> tce_create POSTERN_IOCTL(VFIO_IOMMU_SPAPR_TCE_CREATE);
inline constexpr Ioctl<vfio_iommu_spapr_tce_remove> tce_remove POSTERN_IOCTL(VFIO_IOMMU_SPAPR_TCE_REMOVE);
inline constexpr Ioctl<vfio_eeh_pe_op> eeh_pe_op POSTERN_IOCTL(VFIO_EEH_PE_OP);

}  // namespace postern::spapr
