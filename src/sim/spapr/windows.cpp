// SPDX-License-Identifier: Apache-2.0
// Spapr: creates and removes DMA windows.
#include <cerrno>
#include <cstddef>

#include "sim/spapr/spapr.hpp"

namespace postern::sim {
namespace {

constexpr std::uint32_t default_page_shift = 12;  // for all page sizes of the host

// account_locked_vm counts in pages of the host.
std::uint64_t whole_pages(std::uint64_t bytes) { return bytes & ~(host_page() - 1); }

}  // namespace

// tce_iommu_find_table
std::optional<unsigned> Spapr::slot_holding(std::uint64_t iova) const {
  for (unsigned slot = 0; slot < tce_slots; ++slot) {
    if (tables_[slot] && tables_[slot]->holds(iova)) return slot;
  }
  return std::nullopt;
}

void Spapr::free_table(unsigned slot) {
  if (!tables_[slot]) return;
  process_.unlock(whole_pages(tables_[slot]->counted));
  tables_[slot].reset();
}

// tce_iommu_create_table: the memory of a table that could not be created stays counted.
int Spapr::create_table(unsigned slot, const WindowRequest& request, TceTable& table) {
  const std::uint64_t size = platform_.get_table_size(request);
  if (size == 0) return -EINVAL;
  if (const int result = process_.lock(whole_pages(size)); result < 0) return result;
  return platform_.create_table(groups_.front(), slot, request, table);
}

// tce_iommu_create_window
int Spapr::create_window(const WindowRequest& request, std::uint64_t& start) {
  unsigned slot = 0;
  while (slot < tce_slots && tables_[slot]) ++slot;
  if (slot == tce_slots) return -ENOSPC;
  const std::uint64_t page = request.page_shift < 64 ? std::uint64_t{1} << request.page_shift : 0;
  if ((platform_.facts().page_sizes & page) == 0) return -EINVAL;
  TceTable table;
  if (const int result = create_table(slot, request, table); result < 0) return result;
  tables_[slot] = table;
  for (const int group : groups_) {
    const int result = platform_.set_window(group, slot, table);
    if (result == 0) continue;
    for (const int other : groups_) platform_.unset_window(other, slot);
    free_table(slot);
    return result;
  }
  start = table.first;
  return 0;
}

int Spapr::create_default_window() {
  if (!default_window_pending_) return 0;
  std::uint64_t start = 0;
  const int result =
      create_window({.page_shift = default_page_shift, .size = platform_.facts().default_size, .levels = 1}, start);
  if (result == 0) default_window_pending_ = false;
  return result;
}

int Spapr::create(vfio_iommu_spapr_tce_create& request) {
  if (request.argsz < sizeof request || request.flags != 0) return -EINVAL;
  if (const int result = create_default_window(); result < 0) return result;
  std::uint64_t start = 0;
  const int result =
      create_window({.page_shift = request.page_shift, .size = request.window_size, .levels = request.levels}, start);
  if (result == 0) request.start_addr = start;
  return result;
}

// tce_iommu_remove_window: any address within a window identifies it.
int Spapr::remove(const vfio_iommu_spapr_tce_remove& request) {
  if (request.argsz < sizeof request || request.flags != 0) return -EINVAL;
  if (default_window_pending_ && request.start_addr == 0) {
    default_window_pending_ = false;
    return 0;
  }
  const auto slot = slot_holding(request.start_addr);
  if (!slot) return -EINVAL;
  clear(tables_[*slot]->range());
  for (const int group : groups_) platform_.unset_window(group, *slot);
  free_table(*slot);
  return 0;
}

}  // namespace postern::sim
