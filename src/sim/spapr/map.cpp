// SPDX-License-Identifier: Apache-2.0
// Spapr: maps memory, and registers it for version 2.
#include <algorithm>
#include <cerrno>
#include <cstddef>

#include "sim/spapr/spapr.hpp"

namespace postern::sim {
namespace {

// The result of iommu_tce_put_param_check and iommu_tce_clear_param_check instead of an errno, since they use a logical
// "or".
constexpr int not_zero = 1;

}  // namespace

int Spapr::map(const vfio_iommu_type1_dma_map& request) {
  constexpr std::uint32_t known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  if (request.argsz < sizeof request || (request.flags & ~known) != 0) return -EINVAL;
  if (const int result = create_default_window(); result < 0) return result;
  const auto slot = slot_holding(request.iova);
  if (!slot) return -ENXIO;
  const TceTable table = *tables_[*slot];
  if (((request.size | request.vaddr) & (table.page() - 1)) != 0 || request.flags == 0) return -EINVAL;
  // Only the first page is checked.
  if ((request.iova & (table.page() - 1)) != 0) return not_zero;
  if (request.size == 0) return 0;
  const bool writable = (request.flags & VFIO_DMA_MAP_FLAG_WRITE) != 0;
  const bool readable = (request.flags & VFIO_DMA_MAP_FLAG_READ) != 0;
  return build(table, {.range = {{request.iova}, {request.iova + (request.size - 1)}},
                       .address = request.vaddr,
                       .readable = readable || (writable && platform_.facts().write_implies_read),
                       .writable = writable});
}

// tce_iommu_use_page, tce_iommu_prereg_ua_to_hpa. Version 1 pins for writing in any case, since it takes the direction
// from bits of the address, which are zero.
int Spapr::use_page(std::uintptr_t address, std::uint64_t page, MmRegion*& region) {
  if (!is_v2_) return process_.check_pinnable(address & ~(host_page() - 1), host_page(), true);
  region = regions_.lookup(address, page);
  return region != nullptr && MmRegions::has_pages_of(*region, page) ? 0 : -EINVAL;
}

// tce_iommu_build, tce_iommu_build_v2: page by page, replacing what was there. If one fails, those before it are
// cleared, and what they had replaced is lost.
int Spapr::build(const TceTable& table, const Area& area) {
  const std::uint64_t page = table.page();
  const std::uint64_t pages = (area.range.last - area.range.first) / page + 1;
  for (std::uint64_t i = 0; i < pages; ++i) {
    const IovaRange range{area.range.first + i * page, area.range.first + (i * page + (page - 1))};
    const std::uintptr_t address = area.address + i * page;
    MmRegion* region = nullptr;
    int result = use_page(address, page, region);
    const bool is_past_end = !table.holds(range.first.value);
    // H_PUT_TCE's H_PARAMETER, -4, is treated as an errno. (In version 2 the kernel has followed a wild pointer by now,
    // tce_iommu_unuse_page_v2, and the process was killed.)
    if (result == 0 && is_past_end && platform_.facts().ends_tables) result = -EINTR;
    if (result < 0) {
      if (i > 0) clear({area.range.first, range.first - 1});
      return result;
    }
    // powernv writes past the table, into unrelated memory. Here nothing is written, and no error is returned.
    if (is_past_end) continue;
    if (region != nullptr) ++region->mapped;
    clear(range);
    space_->insert({.range = range, .address = address, .readable = area.readable, .writable = area.writable});
  }
  return 0;
}

int Spapr::unmap(const vfio_iommu_type1_dma_unmap& request) {
  if (request.argsz < sizeof request || request.flags != 0) return -EINVAL;
  if (const int result = create_default_window(); result < 0) return result;
  const auto slot = slot_holding(request.iova);
  if (!slot) return -ENXIO;
  const TceTable& table = *tables_[*slot];
  if ((request.size & (table.page() - 1)) != 0) return -EINVAL;
  const std::uint64_t first = (request.iova - table.first) >> table.page_shift;
  const std::uint64_t pages = request.size >> table.page_shift;
  if ((request.iova & (table.page() - 1)) != 0 || pages > table.entries - first) return not_zero;
  if (pages > 0) clear({{request.iova}, {request.iova + (request.size - 1)}});
  return 0;
}

// tce_iommu_clear, tce_iommu_unuse_page_v2
void Spapr::clear(IovaRange range) {
  while (const Area* const area = space_->first_in(range)) {
    MmRegion* const region = is_v2_ ? regions_.lookup(area->address, area->range.length()) : nullptr;
    if (region != nullptr) region->mapped = std::max<std::uint64_t>(region->mapped - 1, 1);
    space_->erase(Area(*area));
  }
}

// tce_iommu_register_pages
int Spapr::register_memory(std::uint64_t address, std::uint64_t length) {
  if (((address | length) & (host_page() - 1)) != 0 || address + length < address) return -EINVAL;
  MmRegion* region = regions_.get(address, length);
  if (region == nullptr) {
    if (const int result = regions_.add(address, length, region); result != 0) return result;
  } else if (std::count(registered_.begin(), registered_.end(), region) != 0) {
    (void)regions_.put(*region);
    return -EBUSY;
  }
  registered_.push_back(region);
  enabled_ = true;
  return 0;
}

// tce_iommu_unregister_pages: the container drops a mapped region like any other, since the failure of the second put
// is ignored. The region can then never be unregistered.
int Spapr::unregister_memory(std::uint64_t address, std::uint64_t length) {
  if (((address | length) & (host_page() - 1)) != 0) return -EINVAL;
  MmRegion* const region = regions_.get(address, length);
  if (region == nullptr) return -ENOENT;
  const auto found = std::find(registered_.begin(), registered_.end(), region);
  const int result = found != registered_.end() ? regions_.put(*region) : -ENOENT;
  if (result == 0) registered_.erase(found);
  (void)regions_.put(*region);
  return result;
}

}  // namespace postern::sim
