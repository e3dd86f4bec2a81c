// SPDX-License-Identifier: Apache-2.0
// Iommufd: the ioctls of HWPTs: page tables and dirty pages.
#include <linux/iommufd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "sim/iommufd/iommufd.hpp"
#include "sim/process/user_bitmap.hpp"

namespace postern::sim {
Iommufd::Id Iommufd::make_hwpt(Id ioas, const Device& device) {
  const Id id = free_id();
  Ioas& owner = *find<Ioas>(ioas);
  owner.hwpts.reserve(owner.hwpts.size() + 1);  // else an allocation failure later would leave one without an IOAS
  objects_.emplace(
      id,
      Hwpt{.ioas = ioas, .domain = std::make_shared<Domain>(owner.table.space()), .is_noiommu = !device.has_iommu()});
  owner.hwpts.push_back(id);
  return id;
}

// Its page table gets the mappings of the IOAS. Without an IOMMU it accepts every address (noiommu_alloc_paging_flags).
int Iommufd::show(Id id) {
  const Hwpt& hwpt = *find<Hwpt>(id);
  return ioas_of(id).table.add_domain(hwpt.domain,
                                      hwpt.is_noiommu ? IovaRange{{0}, {~std::uint64_t{0}}} : iommu_.aperture);
}

// iommufd_hwpt_paging_destroy
void Iommufd::drop_hwpt(Id id) {
  Ioas& ioas = ioas_of(id);
  ioas.table.remove_domain(find<Hwpt>(id)->domain);
  std::erase(ioas.hwpts, id);
  objects_.erase(id);
}

// iommufd_hwpt_alloc
int Iommufd::execute(iommu_hwpt_alloc& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  if ((command.data_type == IOMMU_HWPT_DATA_NONE) != (command.data_len == 0)) return -EINVAL;
  Device** const device = find<Device*>(command.dev_id);
  if (device == nullptr) return -ENOENT;
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
  // noiommu_alloc_paging_flags
  if (!(*device)->has_iommu() && (command.flags & ~std::uint32_t{IOMMU_HWPT_FAULT_ID_VALID}) != 0) return -EOPNOTSUPP;
  if (command.data_len != 0) return -EOPNOTSUPP;
  const Id id = make_hwpt(command.pt_id, **device);
  Hwpt& hwpt = *find<Hwpt>(id);
  hwpt.has_dirty_ops = wants_dirty;
  int result = show(id);
  // iommufd_get_fault: there are no objects of that kind.
  if (result == 0 && (command.flags & IOMMU_HWPT_FAULT_ID_VALID) != 0) result = -ENOENT;
  command.out_hwpt_id = id;
  if (result == 0) result = respond(&command, sizeof command);
  if (result < 0) drop_hwpt(id);
  return result;
}

// iommufd_hwpt_set_dirty_tracking, which checks no reserved field
int Iommufd::execute(iommu_hwpt_set_dirty_tracking& command) {
  if ((command.flags & ~std::uint32_t{IOMMU_HWPT_DIRTY_TRACKING_ENABLE}) != 0) return -EOPNOTSUPP;
  const Hwpt* const hwpt = find<Hwpt>(command.hwpt_id);
  if (hwpt == nullptr) return -ENOENT;
  if (!hwpt->has_dirty_ops) return -EOPNOTSUPP;
  hwpt->domain->track_dirty(command.flags != 0);
  return 0;
}

// iommufd_hwpt_get_dirty_bitmap
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
  // iommu_read_and_clear_dirty ignores the result of __iommu_read_and_clear_dirty: a hole ends it with success.
  for (Iova at = range->first;;) {
    const Area* const area = hwpt->domain->space()->holding(at);
    if (area == nullptr) return 0;
    const Iova last = std::min(area->range.last, range->last);
    // read_and_clear_dirty; dirty bits survive the end of tracking.
    auto& dirty = hwpt->domain->dirty();
    bitmap.tell(process_, dirty, {at, last});
    if ((command.flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) == 0) clear_pages(dirty, {at, last});
    if (last == range->last) return 0;
    at = last + 1;
  }
}

}  // namespace postern::sim
