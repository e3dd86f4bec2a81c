// SPDX-License-Identifier: Apache-2.0
// MmRegions: registers regions, counts their users, and finds their page sizes.
#include "sim/spapr/mm_regions.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <postern/locked_memory.hpp>

#include "sim/spapr/tce_platform.hpp"

namespace postern::sim {

MmRegion* MmRegions::get(std::uintptr_t address, std::uint64_t length) {
  const auto found = regions_.find(address);
  if (found == regions_.end() || found->second.length != length) return nullptr;
  ++found->second.used;
  return &found->second;
}

namespace {

// Whether an array with a word for each page can be allocated (vzalloc, which checks the host's memory).
bool has_array(std::uint64_t length) {
  const auto memory = static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * host_page();
  return length > 0 && length / host_page() <= memory / sizeof(std::uint64_t);
}

}  // namespace

// mm_iommu_do_alloc: counts, allocates an array, pins for writing, and only then checks for overlaps. If memory ends
// within the region, returns the number of pages that pin_user_pages found, and registers nothing.
int MmRegions::add(std::uintptr_t address, std::uint64_t length, MmRegion*& region) {
  if (!has_array(length)) return -ENOMEM;
  if (const int result = process_.lock(length); result < 0) return result;
  int result = process_.check_pinnable(address, length, true);
  if (result < 0) {
    const std::uint64_t page = host_page();
    int pages = 0;
    while (process_.check_pinnable(address + static_cast<std::uint64_t>(pages) * page, page, true) == 0) ++pages;
    if (pages > 0) result = pages;
  } else {
    const auto next = regions_.lower_bound(address + length);
    if (next != regions_.begin()) {
      const MmRegion& before = std::prev(next)->second;
      if (before.address + before.length > address) result = -EINVAL;
    }
  }
  if (result != 0) {
    process_.unlock(length);
    return result;
  }
  region = &(regions_[address] = MmRegion{.address = address, .length = length, .page_size = {}});
  return 0;
}

int MmRegions::put(MmRegion& region) {
  if (--region.used > 0) return 0;
  if (region.mapped != 1) {
    ++region.used;
    return -EBUSY;
  }
  process_.unlock(region.length);
  regions_.erase(region.address);
  return 0;
}

MmRegion* MmRegions::lookup(std::uintptr_t address, std::uint64_t length) {
  auto found = regions_.upper_bound(address);
  if (found == regions_.begin()) return nullptr;
  MmRegion& region = std::prev(found)->second;
  const std::uint64_t offset = address - region.address;
  return offset < region.length && length <= region.length - offset ? &region : nullptr;
}

// mm_iommu_do_alloc, mm_iommu_ua_to_hpa: pages of hugetlbfs count as huge; transparent huge pages do not.
bool MmRegions::has_pages_of(MmRegion& region, std::uint64_t size) {
  if (size <= host_page()) return true;
  if (!region.page_size) {
    const std::uint64_t aligned = region.address | region.length;
    std::uint64_t smallest = aligned & -aligned;
    for (std::uint64_t at = 0; at < region.length && smallest > host_page();) {
      const auto page = backing_page_size(system_kernel(), reinterpret_cast<void*>(region.address + at));
      smallest = std::min(smallest, page.value_or(host_page()));
      at += smallest;
    }
    region.page_size = smallest;
  }
  return size <= *region.page_size;
}

}  // namespace postern::sim
