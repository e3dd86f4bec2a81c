// SPDX-License-Identifier: Apache-2.0
// IommuModel: the IOMMUs of the simulated hosts.
#include "sim/iommu/iommu_model.hpp"

#include <algorithm>

namespace postern::sim {

IommuModel make_iommu_model(const Host& host) {
  IommuModel iommu;
  unsigned most_bits = 57;  // VT-d with five levels
  if (host.platform == Platform::arm) {
    most_bits = 48;  // of page tables of 4 KiB (arm_lpae_restrict_pgsizes, Linux 7.3)
    iommu.unit = IommuUnit::smmuv3;
    // MSI_IOVA_BASE and MSI_IOVA_LENGTH: where the kernel maps the interrupt doorbells (arm_smmu_get_resv_regions,
    // IOMMU_RESV_SW_MSI; Linux 7.3).
    iommu.reserved = {{{0x8000000}, {0x80fffff}}};
  }
  iommu.aperture.last = {~std::uint64_t{0} >> (64 - std::clamp(host.address_bits, 32U, most_bits))};
  iommu.has_dirty_bits = host.dirty_bits;
  return iommu;
}

}  // namespace postern::sim
