// SPDX-License-Identifier: Apache-2.0
// ShadowMap: what a container has mapped, as the container knows it.
#pragma once

#include <cstddef>
#include <postern/iova.hpp>

#include "memory/iova_tree.hpp"
#include "memory/slab.hpp"

namespace postern {

// One mapping of a container (the public Mapping, as the tree keeps it). It stays at its address until it is erased.
struct MappingRecord : memory::Ranged {
  void* address = nullptr;
  Access access = Access::read_write;
};

// Every operation but the walks takes O(log n). A map, or an unmap, near the one before it skips most of the search.
// Memory may run out in insert() alone, and then nothing has changed. Thread rules: one thread at a time.
class ShadowMap {
 public:
  // What an unmap of a range would meet.
  struct Cover {
    enum class Kind : std::uint8_t {
      nothing,  // no mapping in the range
      whole,    // one mapping or more, all of them inside the range
      split,    // a mapping that reaches out of the range, which an unmap would cut
    };
    Kind kind;
    const MappingRecord* mapping;  // the first one inside; the first one cut; null where there is nothing
  };

  // Null when the mapping went in; else the first mapping that it overlaps, and nothing has changed.
  [[nodiscard]] const MappingRecord* insert(IovaRange range, void* address, Access access);
  // The same, where it is quickly seen that there is room; false, and nothing has changed, where it is not.
  [[nodiscard]] bool insert_surely(IovaRange range, void* address, Access access);
  // The mapping that was inserted, or sought with success, last.
  [[nodiscard]] const MappingRecord& latest() const noexcept {
    return static_cast<const MappingRecord&>(tree_.latest());
  }

  // Erases the mapping of exactly this range; false where there is none. Here and below a range does not end before it
  // begins, nor is it the whole space.
  bool erase(IovaRange range) noexcept;
  // The same in halves: whether there is one, and the erasing of it, if nothing has changed in between.
  [[nodiscard]] bool seek(IovaRange range) noexcept { return tree_.seek(range); }
  void erase_found() noexcept;
  // Erases the mappings that lie wholly inside the range, and tells how many those were.
  std::size_t erase_within(IovaRange range) noexcept;
  void clear() noexcept;

  [[nodiscard]] const MappingRecord* find(Iova iova) const;         // the mapping that contains the iova, or null
  [[nodiscard]] const MappingRecord* at_or_above(Iova iova) const;  // the lowest that begins there or above, or null
  [[nodiscard]] Cover cover(IovaRange range) const;

  // Calls visit(const MappingRecord&) in the order of the iovas. It must not change the map.
  template <typename Visit>
  void for_each(Visit&& visit) const {
    tree_.for_each([&](const memory::Ranged& record) { visit(static_cast<const MappingRecord&>(record)); });
  }

  [[nodiscard]] std::size_t size() const noexcept { return mappings_.live(); }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  [[nodiscard]] std::size_t memory_bytes() const noexcept;

 private:
  [[gnu::noinline]] void insert_at(memory::IovaTree::Place place, MappingRecord* mapping);
  [[gnu::noinline]] void tidy() noexcept;

  memory::IovaTree tree_;
  memory::Slab<MappingRecord> mappings_;
};

// The way of nearly every insert.
[[gnu::always_inline]] inline bool ShadowMap::insert_surely(IovaRange range, void* address, Access access) {
  const memory::IovaTree::Place place = tree_.place_above_0(range.first.value);
  if (!tree_.is_surely_free(place, range) || !mappings_.has_room()) [[unlikely]] {
    return false;
  }
  MappingRecord* const mapping = mappings_.take({{{range.first, range.last}}, address, access});
  if (tree_.has_repeat(place)) {
    tree_.fill(place, *mapping);
  } else {
    insert_at(place, mapping);
  }
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
