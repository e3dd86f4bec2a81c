// SPDX-License-Identifier: Apache-2.0
// ShadowMap: a container's own record of its mappings.
#pragma once

#include <cstddef>
#include <optional>
#include <postern/iova.hpp>

#include "memory/iova_tree.hpp"
#include "memory/slab.hpp"

namespace postern {

// One mapping of a container (the public Mapping, as the tree keeps it). It stays at its address until it is erased.
struct MappingRecord : memory::Ranged {
  void* address = nullptr;
  Access access = Access::read_write;
};

// All operations except the walks take O(log n). A map or unmap near the previous one skips most of the search. Only
// insert() allocates memory; if it runs out, nothing has changed. Thread safety: one thread at a time.
class ShadowMap {
 public:
  // What an unmap of a range would affect.
  struct Cover {
    enum class Kind : std::uint8_t {
      nothing,  // no mapping in the range
      whole,    // one or more mappings, all inside the range
      split,    // a mapping that is partly outside the range, which an unmap would split
    };
    Kind kind;
    const MappingRecord* mapping;  // the first one inside, or the first one split; null if there is none
  };

  // Returns null if the mapping was inserted; else the first mapping that it overlaps, and nothing has changed.
  [[nodiscard]] const MappingRecord* insert(IovaRange range, void* address, Access access);
  // The same in steps of a few instructions. First step: returns the position for the range.
  using Place = memory::IovaTree::Place;
  [[nodiscard]] Place place_of(IovaRange range) const { return tree_.place_above_0(range.first.value); }
  // Second step: returns a record for it; or null, with nothing changed, if a quick check does not show that the range
  // is free.
  [[nodiscard]] MappingRecord* begin_insert(Place place, IovaRange range, void* address, Access access);
  // Third step: inserts the record and returns true if no other record must be moved. Else finish_insert() inserts it.
  [[nodiscard]] bool insert_quickly(Place place, MappingRecord& mapping);
  void finish_insert(Place place, MappingRecord* mapping) { insert_at(place, mapping); }
  // The mapping that was last inserted or found.
  [[nodiscard]] const MappingRecord& latest() const noexcept {
    return static_cast<const MappingRecord&>(tree_.latest());
  }

  // Erases the mapping of exactly this range; false if there is none. Here and below a range must not be empty, nor the
  // whole space.
  bool erase(IovaRange range) noexcept;
  // The same in two steps: whether there is one, and erasing it if nothing has changed in between. is_latest() checks
  // only the mapping that was last inserted or found.
  [[nodiscard]] bool is_latest(IovaRange range) const noexcept { return tree_.is_near(range); }
  [[nodiscard]] bool seek(IovaRange range) noexcept { return tree_.seek(range); }
  void erase_found() noexcept;
  // Erases the mappings that are completely inside the range, and returns their number.
  std::size_t erase_within(IovaRange range) noexcept;
  void clear() noexcept;

  [[nodiscard]] const MappingRecord* find(Iova iova) const;         // the mapping that contains the iova, or null
  [[nodiscard]] const MappingRecord* at_or_above(Iova iova) const;  // the lowest that starts at or above it, or null
  [[nodiscard]] Cover cover(IovaRange range) const;
  [[nodiscard]] std::optional<IovaRange> first_overlapping(
      IovaRange range) const;  // the lowest mapping that overlaps it

  // Calls visit(const MappingRecord&) in the order of the iovas. It must not change the map.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    tree_.for_each([&](const memory::Ranged& record) { visit(static_cast<const MappingRecord&>(record)); });
  }

  [[nodiscard]] std::size_t size() const noexcept { return mappings_.live(); }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  // The size at which is_full() becomes true. The map itself has no limit.
  void set_limit(std::uint64_t mappings) noexcept { mappings_.set_limit(mappings); }
  [[nodiscard]] bool is_full() const noexcept { return mappings_.is_full(); }
  [[nodiscard]] std::size_t memory_bytes() const noexcept;

 private:
  [[gnu::noinline]] void insert_at(Place place, MappingRecord* mapping);
  [[gnu::noinline]] void tidy() noexcept;

  memory::IovaTree tree_;
  memory::Slab<MappingRecord> mappings_;
};

[[gnu::always_inline]] inline MappingRecord* ShadowMap::begin_insert(Place place, IovaRange range, void* address,
                                                                     Access access) {
  if (!tree_.is_surely_free(place, range) || !mappings_.has_room()) [[unlikely]]
    return nullptr;
  return mappings_.take({{{range.first, range.last}}, address, access});
}

[[gnu::always_inline]] inline bool ShadowMap::insert_quickly(Place place, MappingRecord& mapping) {
  if (!tree_.has_repeat(place)) return false;
  tree_.fill(place, mapping);
  return true;
}

[[gnu::always_inline]] inline void ShadowMap::erase_found() noexcept {
  mappings_.give_back(static_cast<MappingRecord*>(tree_.take_out()));
  if (mappings_.is_sparse()) [[unlikely]]
    return tidy();
  if (tree_.is_sparse()) [[unlikely]]
    return tidy();
}

inline const MappingRecord* ShadowMap::find(Iova iova) const {
  const memory::Ranged* const record = tree_.at_or_below(iova);
  return record != nullptr && record->range.last >= iova ? static_cast<const MappingRecord*>(record) : nullptr;
}

inline const MappingRecord* ShadowMap::at_or_above(Iova iova) const {
  return static_cast<const MappingRecord*>(tree_.at_or_above(iova));
}

}  // namespace postern
