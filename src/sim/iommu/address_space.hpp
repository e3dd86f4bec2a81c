// SPDX-License-Identifier: Apache-2.0
// AddressSpace: what is mapped for devices, and Domain: an IOMMU's page table, which a device's DMA goes through.
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

// One mapping: the devices see the process's memory at `address` in this range.
struct Area {
  IovaRange range;
  std::uintptr_t address = 0;
  bool readable = false;
  bool writable = false;
  std::shared_ptr<std::vector<std::uint64_t>> bitmap = {};  // of written pages, where type1 keeps one
  std::uint64_t locked = 0;                                 // bytes of it that type1 counts as locked memory
  bool is_moving = false;                                   // type1 was told that its address is going to change
};

// Mappings that do not overlap, in the order of their iovas.
class AddressSpace {
 public:
  void insert(const Area& area) { areas_[area.range.last.value] = area; }
  void erase(const Area& area) { areas_.erase(area.range.last.value); }
  void clear() { areas_.clear(); }

  // The first that overlaps the range; null where there is none.
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
  std::map<std::uint64_t, Area> areas_;  // by their last iova, so that a search finds the one that reaches over an iova
};

// Several domains may show the same space: the page tables of one IOAS.
class Domain {
 public:
  explicit Domain(std::shared_ptr<AddressSpace> space) : space_(std::move(space)) {}

  // DMA, to and from the process's memory. False where a byte of it is not mapped for that: then what lies before it
  // may have been copied, as with real DMA.
  [[nodiscard]] bool read(Iova iova, std::span<std::byte> bytes);
  [[nodiscard]] bool write(Iova iova, std::span<const std::byte> bytes);

  [[nodiscard]] const std::shared_ptr<AddressSpace>& space() const noexcept { return space_; }

  // Pages of 4 KiB that were written while this was on.
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
