// SPDX-License-Identifier: Apache-2.0
// Iommufd: IOMMU_GET_HW_INFO, the IOMMU of a device.
#include <linux/iommufd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "sim/iommufd/iommufd.hpp"

namespace postern::sim {
namespace {

// VT-d specification, 11.4.2 and 11.4.3. Values that the model does not have are those of QEMU's unit.
iommu_hw_info_vtd vtd_info(const IommuModel& iommu) {
  const auto bit = [](unsigned number) { return std::uint64_t{1} << number; };
  const auto width = static_cast<unsigned>(std::bit_width(iommu.aperture.last.value));
  iommu_hw_info_vtd info{};
  info.flags = IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17;  // intel_iommu_hw_info sets it for every unit
  info.cap_reg = 0xd2008022000086;
  info.cap_reg |= bit(width > 48 ? 11 : width > 39 ? 10 : 9);      // SAGAW
  info.cap_reg |= std::uint64_t{width - 1} << 16;                  // MGAW
  if ((iommu.page_sizes & bit(21)) != 0) info.cap_reg |= bit(34);  // SSLPS
  if ((iommu.page_sizes & bit(30)) != 0) info.cap_reg |= bit(35);
  info.ecap_reg = 0xf00f4a;
  // ssads_supported wants SMTS and SSADS; in scalable mode SSTS means that there are second-stage page tables.
  if (iommu.has_dirty_bits) info.ecap_reg |= bit(43) | bit(45) | bit(46);
  return info;
}

// SMMUv3 specification, 6.3.1 to 6.3.6, with the values of QEMU's unit, but only stage 1: so no page table here can be
// the parent of another.
iommu_hw_info_arm_smmuv3 smmuv3_info(const IommuModel& iommu) {
  const auto bit = [](unsigned number) { return std::uint32_t{1} << number; };
  iommu_hw_info_arm_smmuv3 info{};
  info.idr[0] = 0xd44101a;
  if (iommu.has_dirty_bits) info.idr[0] |= bit(7);  // HTTU: access and dirty state
  info.idr[1] = 0x2730010;                          // queues, and 16 bits of stream
  info.idr[3] = bit(2) | bit(10) | 2U << 11;        // HAD, RIL, BBML
  info.idr[5] = 0x74;                               // granules of 4, 16 and 64 KiB
  return info;
}

}  // namespace

// iommufd_get_hw_info, intel_iommu_hw_info, arm_smmu_hw_info
int Iommufd::execute(iommu_hw_info& command) {
  if ((command.flags & ~std::uint32_t{IOMMU_HW_INFO_FLAG_INPUT_TYPE}) != 0) return -EOPNOTSUPP;
  if (std::any_of(std::begin(command.__reserved), std::end(command.__reserved), [](auto each) { return each != 0; })) {
    return -EOPNOTSUPP;
  }
  if (command.flags == 0) command.in_data_type = IOMMU_HW_INFO_TYPE_DEFAULT;
  Device** const device = find<Device*>(command.dev_id);
  if (device == nullptr) return -ENOENT;
  if (!(*device)->has_iommu()) return -EOPNOTSUPP;
  const bool is_vtd = iommu_.unit == IommuUnit::vtd;
  const auto type = is_vtd ? IOMMU_HW_INFO_TYPE_INTEL_VTD : IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
  if (command.in_data_type != IOMMU_HW_INFO_TYPE_DEFAULT && command.in_data_type != type) return -EOPNOTSUPP;
  const auto vtd = vtd_info(iommu_);
  const auto smmuv3 = smmuv3_info(iommu_);
  const auto info = is_vtd ? std::as_bytes(std::span(&vtd, 1)) : std::as_bytes(std::span(&smmuv3, 1));
  if (command.data_len != 0) {
    const auto address = static_cast<std::uintptr_t>(command.data_uptr);
    if (process_.check(address, command.data_len, true) < 0) return -EFAULT;
    const std::size_t length = std::min<std::size_t>(command.data_len, info.size());
    std::memcpy(reinterpret_cast<void*>(address), info.data(), length);
    std::memset(reinterpret_cast<std::byte*>(address) + length, 0, command.data_len - length);
  }
  command.data_len = static_cast<std::uint32_t>(info.size());
  command.out_data_type = type;
  command.out_capabilities = IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
  if (iommu_.has_dirty_bits) command.out_capabilities |= IOMMU_HW_CAP_DIRTY_TRACKING;
  command.out_max_pasid_log2 = 0;
  return respond(&command, sizeof command);
}

}  // namespace postern::sim
