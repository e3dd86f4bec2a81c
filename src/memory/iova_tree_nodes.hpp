// SPDX-License-Identifier: Apache-2.0
// The nodes of an IovaTree. Included only by iova_tree.hpp.
#pragma once

namespace postern::memory {

struct IovaTree::Leaf {
  std::uint64_t low = 0;  // all keys are >= low, and below bound()
  Leaf* previous = nullptr;
  Leaf* next = nullptr;
  std::ptrdiff_t surplus = 0;  // records minus `least`: one number to count and to compare
  std::ptrdiff_t least = 0;    // with fewer records the leaf should be joined with a neighbour
  // A blank, the slots, the bound, and two that end every search for a repeat.
  std::array<Slot, 1 + leaf_slots + 3> cells;
  [[nodiscard]] Slot* begin() { return cells.data() + 1; }
  [[nodiscard]] Slot* end() { return begin() + leaf_slots; }
  [[nodiscard]] std::uint64_t bound() const { return cells[1 + leaf_slots].key; }
  [[nodiscard]] std::size_t count() const { return static_cast<std::size_t>(surplus + least); }
  [[nodiscard]] bool spans(std::uint64_t key) const { return low <= key && key < bound(); }
  [[nodiscard]] Slot* search(std::uint64_t key);  // the first slot with this key or above; key <= bound()
};

struct IovaTree::Inner {
  std::size_t count = 0;                               // children
  std::array<std::uint64_t, inner_children - 1> keys;  // node i of the search tree is keys[i - 1]
  std::array<void*, inner_children> children;
  [[nodiscard]] std::size_t rank_of(std::uint64_t key) const;  // of the child whose range contains the key
  [[nodiscard]] std::uint64_t& key(std::size_t rank);          // the lowest key of child rank + 1
};

}  // namespace postern::memory
