// SPDX-License-Identifier: Apache-2.0
// The ioctls of a simulated /dev/iommu that are about HWPTs: page tables, written pages, and the IOMMU behind a device.
#include <linux/iommufd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "sim/iommufd/iommufd.hpp"
#include "sim/user_bitmap.hpp"

namespace postern::sim {
namespace {

// VT-d specification, 11.4.2 and 11.4.3. What the model does not say is as the unit has it that QEMU emulates.
iommu_hw_info_vtd vtd_info(const IommuModel& iommu) {
  const auto bit = [](unsigned number) { return std::uint64_t{1} << number; };
  const auto width = static_cast<unsigned>(std::bit_width(iommu.aperture.last.value));
  iommu_hw_info_vtd info{};
  info.flags = IOMMU_HW_INFO_VTD_ERRATA_772415_SPR17;  // intel_iommu_hw_info says it of every unit
  info.cap_reg = 0xd2008022000086;
  info.cap_reg |= bit(width > 48 ? 11 : width > 39 ? 10 : 9);      // SAGAW
  info.cap_reg |= std::uint64_t{width - 1} << 16;                  // MGAW
  if ((iommu.page_sizes & bit(21)) != 0) info.cap_reg |= bit(34);  // SSLPS
  if ((iommu.page_sizes & bit(30)) != 0) info.cap_reg |= bit(35);
  info.ecap_reg = 0xf00f4a;
  // ssads_supported wants SMTS and SSADS; in scalable mode SSTS tells that there are second-stage page tables.
  if (iommu.has_dirty_bits) info.ecap_reg |= bit(43) | bit(45) | bit(46);
  return info;
}

}  // namespace

Iommufd::Id Iommufd::make_hwpt(Id ioas) {
  const Id id = free_id();
  Ioas& owner = *find<Ioas>(ioas);
  objects_.emplace(id, Hwpt{.ioas = ioas, .domain = std::make_shared<Domain>(owner.table.space())});
  owner.hwpts.push_back(id);
  return id;
}

// iommufd_hwpt_paging_destroy
void Iommufd::drop_hwpt(Id id) {
  Ioas& ioas = ioas_of(id);
  ioas.table.remove_domain(find<Hwpt>(id)->domain);
  std::erase(ioas.hwpts, id);
  objects_.erase(id);
}

// iommufd_hwpt_alloc
template <>
int Iommufd::execute(iommu_hwpt_alloc& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  if ((command.data_type == IOMMU_HWPT_DATA_NONE) != (command.data_len == 0)) return -EINVAL;
  if (find<Function*>(command.dev_id) == nullptr) return -ENOENT;
  if (find<Hwpt>(command.pt_id) != nullptr) {
    // iommufd_hwpt_nested_alloc: nothing here is a parent.
    const bool known = (command.flags & ~std::uint32_t{IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID}) == 0;
    return known && command.data_len != 0 ? -EINVAL : -EOPNOTSUPP;
  }
  Ioas* const ioas = find<Ioas>(command.pt_id);
  if (ioas == nullptr) return -EINVAL;

  // iommufd_hwpt_paging_alloc, intel_iommu_domain_alloc_paging_flags
  constexpr std::uint32_t known = IOMMU_HWPT_ALLOC_DIRTY_TRACKING | IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID;
  const bool wants_dirty = (command.flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) != 0;
  if ((command.flags & ~known) != 0 || (wants_dirty && !iommu_.has_dirty_bits)) return -EOPNOTSUPP;
  if (command.data_len != 0) return -EOPNOTSUPP;
  const Id id = make_hwpt(command.pt_id);
  Hwpt& hwpt = *find<Hwpt>(id);
  hwpt.has_dirty_ops = wants_dirty;
  int result = ioas->table.add_domain(hwpt.domain);
  // iommufd_get_fault: there are no objects of that kind.
  if (result == 0 && (command.flags & IOMMU_HWPT_FAULT_ID_VALID) != 0) result = -ENOENT;
  command.out_hwpt_id = id;
  if (result == 0) result = respond(&command, sizeof command);
  if (result < 0) drop_hwpt(id);
  return result;
}

// iommufd_hwpt_set_dirty_tracking, which looks at no reserved field
template <>
int Iommufd::execute(iommu_hwpt_set_dirty_tracking& command) {
  if ((command.flags & ~std::uint32_t{IOMMU_HWPT_DIRTY_TRACKING_ENABLE}) != 0) return -EOPNOTSUPP;
  const Hwpt* const hwpt = find<Hwpt>(command.hwpt_id);
  if (hwpt == nullptr) return -ENOENT;
  if (!hwpt->has_dirty_ops) return -EOPNOTSUPP;
  hwpt->domain->track_dirty(command.flags != 0);
  return 0;
}

// iommufd_hwpt_get_dirty_bitmap
template <>
int Iommufd::execute(iommu_hwpt_get_dirty_bitmap& command) {
  if ((command.flags & ~std::uint32_t{IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR}) != 0 || command.__reserved != 0) {
    return -EOPNOTSUPP;
  }
  const Hwpt* const hwpt = find<Hwpt>(command.hwpt_id);
  if (hwpt == nullptr) return -ENOENT;
  // iommufd_check_iova_range
  if (command.length == 0) return -EINVAL;
  const auto range = IovaRange::from_length({command.iova}, command.length);
  if (!range) return -EOVERFLOW;
  if (command.page_size == 0) return -EINVAL;
  const std::uint64_t ends = command.iova | (range->last.value + 1);
  const std::uint64_t alignment = ioas_of(command.hwpt_id).table.alignment();
  if ((ends & (alignment - 1)) != 0 || (ends & (command.page_size - 1)) != 0) return -EINVAL;
  if (!hwpt->has_dirty_ops) return -EOPNOTSUPP;

  const UserBitmap bitmap{
      .bits = static_cast<std::uintptr_t>(command.data), .iova = {command.iova}, .page_size = command.page_size};
  // iommu_read_and_clear_dirty drops what __iommu_read_and_clear_dirty returns: a hole ends it with success.
  for (Iova at = range->first;;) {
    const Area* const area = hwpt->domain->space()->holding(at);
    if (area == nullptr) return 0;
    const Iova last = std::min(area->range.last, range->last);
    // read_and_clear_dirty; what was written stays known after the tracking ended.
    auto& dirty = hwpt->domain->dirty();
    bitmap.tell(process_, dirty, {at, last});
    if ((command.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) == 0) forget(dirty, {at, last});
    if (last == range->last) return 0;
    at = last + 1;
  }
}

// iommufd_get_hw_info, intel_iommu_hw_info
template <>
int Iommufd::execute(iommu_hw_info& command) {
  if ((command.flags & ~std::uint32_t{IOMMU_HW_INFO_FLAG_INPUT_TYPE}) != 0) return -EOPNOTSUPP;
  if (std::any_of(std::begin(command.__reserved), std::end(command.__reserved), [](auto each) { return each != 0; })) {
    return -EOPNOTSUPP;
  }
  if (command.flags == 0) command.in_data_type = IOMMU_HW_INFO_TYPE_DEFAULT;
  if (find<Function*>(command.dev_id) == nullptr) return -ENOENT;
  if (command.in_data_type != IOMMU_HW_INFO_TYPE_DEFAULT && command.in_data_type != IOMMU_HW_INFO_TYPE_INTEL_VTD) {
    return -EOPNOTSUPP;
  }
  const iommu_hw_info_vtd info = vtd_info(iommu_);
  if (command.data_len != 0) {
    const auto address = static_cast<std::uintptr_t>(command.data_uptr);
    if (process_.check(address, command.data_len, true) < 0) return -EFAULT;
    const std::size_t length = std::min<std::size_t>(command.data_len, sizeof info);
    std::memcpy(reinterpret_cast<void*>(address), &info, length);
    std::memset(reinterpret_cast<std::byte*>(address) + length, 0, command.data_len - length);
  }
  command.data_len = sizeof info;
  command.out_data_type = IOMMU_HW_INFO_TYPE_INTEL_VTD;
  command.out_capabilities = IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED;
  if (iommu_.has_dirty_bits) command.out_capabilities |= IOMMU_HW_CAP_DIRTY_TRACKING;
  command.out_max_pasid_log2 = 0;
  return respond(&command, sizeof command);
}

}  // namespace postern::sim
