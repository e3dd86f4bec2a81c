// SPDX-License-Identifier: Apache-2.0
// AddressSpace: mappings for devices. Domain: an IOMMU's page table, which translates the DMA of devices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <postern/iova.hpp>
#include <set>
#include <span>
#include <vector>

namespace postern::sim {

// One mapping: devices access the process's memory at `address` through this range.
struct Area {
  IovaRange range;
  std::uintptr_t address = 0;
  bool readable = false;
  bool writable = false;
  std::shared_ptr<std::vector<std::uint64_t>> bitmap = {};  // of dirty pages, if type1 keeps one
  std::uint64_t locked = 0;                                 // bytes of it that type1 counts as locked memory
  bool is_moving = false;                                   // its address is about to change (type1)
  std::shared_ptr<const bool> is_alive = {};                // of a dma-buf: false if it was revoked
};

// Disjoint mappings, sorted by iova.
class AddressSpace {
 public:
  void insert(const Area& area) { areas_[area.range.last.value] = area; }
  void erase(const Area& area) { areas_.erase(area.range.last.value); }
  void clear() { areas_.clear(); }

  // Returns the first that overlaps the range; null if there is none.
  [[nodiscard]] const Area* first_in(IovaRange range) const {
    const auto found = areas_.lower_bound(range.first.value);
    return found != areas_.end() && found->second.range.first <= range.last ? &found->second : nullptr;
  }
  [[nodiscard]] const Area* holding(Iova iova) const { return first_in({iova, iova}); }
  [[nodiscard]] std::size_t size() const noexcept { return areas_.size(); }

  template <typename Visit>
  void for_each(Visit visit) const {
    for (const auto& [last, area] : areas_) visit(area);
  }

 private:
  std::map<std::uint64_t, Area> areas_;  // by their last iova, so that a search finds the one that contains an iova
};

// Several domains may use the same address space: the page tables of one IOAS.
class Domain {
 public:
  explicit Domain(std::shared_ptr<AddressSpace> space) : space_(std::move(space)) {}

  // DMA to and from the process's memory. False if a byte is not mapped for this access: the bytes before it may have
  // been copied, as with real DMA.
  [[nodiscard]] bool read(Iova iova, std::span<std::byte> bytes);
  [[nodiscard]] bool write(Iova iova, std::span<const std::byte> bytes);

  [[nodiscard]] const std::shared_ptr<AddressSpace>& space() const noexcept { return space_; }

  // Records the pages of 4 KiB that are written while this is on.
  void track_dirty(bool on) {
    tracks_dirty_ = on;
    if (on) dirty_.clear();
  }
  [[nodiscard]] bool tracks_dirty() const noexcept { return tracks_dirty_; }
  [[nodiscard]] std::set<std::uint64_t>& dirty() noexcept { return dirty_; }  // iovas

 private:
  std::shared_ptr<AddressSpace> space_;
  bool tracks_dirty_ = false;
  std::set<std::uint64_t> dirty_;
};

}  // namespace postern::sim
