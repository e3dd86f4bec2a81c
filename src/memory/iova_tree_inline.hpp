// SPDX-License-Identifier: Apache-2.0
// IovaTree: the fast paths, for its users to inline. Included only by iova_tree.hpp.
#pragma once

#include <bit>
#include <utility>

#include "memory/iova_tree_nodes.hpp"

namespace postern::memory {

[[gnu::always_inline]] inline IovaTree::Slot* IovaTree::Leaf::search(std::uint64_t key) {
  static_assert(leaf_slots == 63);
  Slot* at = begin();
  at = step_over(at, at + 32, at[31].key, key);
  at = step_over(at, at + 16, at[15].key, key);
  at = step_over(at, at + 8, at[7].key, key);
  at = step_over(at, at + 4, at[3].key, key);
  at = step_over(at, at + 2, at[1].key, key);
  return step_over(at, at + 1, at[0].key, key);
}

[[gnu::always_inline]] inline std::size_t IovaTree::Inner::rank_of(std::uint64_t key) const {
  static_assert(inner_children == 64);
  const std::uint64_t bound = key + 1;
  std::size_t i = step_down_from_1(keys[0], bound);
  i = step_down(i, keys[i - 1], bound);
  i = step_down(i, keys[i - 1], bound);
  i = step_down(i, keys[i - 1], bound);
  i = step_down(i, keys[i - 1], bound);
  i = step_down(i, keys[i - 1], bound);
  return i - inner_children;
}

inline std::size_t IovaTree::bytes() const noexcept { return leaves_ * sizeof(Leaf) + inners_ * sizeof(Inner); }

[[gnu::always_inline]] inline bool IovaTree::is_sparse() const noexcept { return near_->surplus < 0; }

inline std::uint64_t& IovaTree::Inner::key(std::size_t rank) {
  // The rank's trailing ones are the level, counted from the lowest; the bits above them are the position in it.
  const int level = std::countr_one(rank);
  return keys[(((inner_children / 2) >> level) | (rank >> level >> 1)) - 1];
}

[[gnu::always_inline]] inline IovaTree::Leaf* IovaTree::leaf_of(std::uint64_t key) const {
  if (near_->spans(key)) return near_;
  void* node = root_;
  for (std::size_t levels = levels_; levels != 0; --levels) {
    const Inner& inner = *static_cast<const Inner*>(node);
    node = inner.children[inner.rank_of(key)];
  }
  return static_cast<Leaf*>(node);
}

[[gnu::always_inline]] inline IovaTree::Place IovaTree::place_above_0(std::uint64_t key) const {
  assert(key != above_all);
  Leaf* const leaf = leaf_of(key);
  return {leaf, leaf->search(key)};
}

inline IovaTree::Place IovaTree::place_of(std::uint64_t key) const {
  if (key == 0) return lowest();
  Leaf* const leaf = leaf_of(key);
  // Prefetches the cache lines that the search may visit: in a tree larger than the cache, each step would wait for
  // one.
  const Slot* const slots = leaf->begin();
  __builtin_prefetch(slots + 7);
  __builtin_prefetch(slots + 15);
  __builtin_prefetch(slots + 23);
  __builtin_prefetch(slots + 39);
  __builtin_prefetch(slots + 47);
  __builtin_prefetch(slots + 55);
  return {leaf, leaf->search(key)};
}

[[gnu::always_inline]] inline Ranged* IovaTree::below(Place place) const {
  if (is_blank(place.slot_[-1])) [[unlikely]]
    return last_before(*place.leaf_);
  return place.slot_[-1].record;
}

inline Ranged* IovaTree::above(Place place) const {
  if (place.slot_->key != place.leaf_->bound()) return place.slot_->record;
  return place.leaf_->next == nullptr ? nullptr : above({place.leaf_->next, place.leaf_->next->search(1)});
}

[[gnu::always_inline]] inline Ranged* IovaTree::at_or_below(Iova iova) const {
  const std::uint64_t key = iova.value - static_cast<std::uint64_t>(iova.value == above_all);
  Leaf* const leaf = leaf_of(key);
  return below({leaf, leaf->search(key + 1)});
}

inline Ranged* IovaTree::at_or_above(Iova iova) const {
  return iova.value == above_all ? nullptr : above(place_of(iova.value));
}

[[gnu::always_inline]] inline Ranged* IovaTree::overlapping(Place place, IovaRange range) const {
  Ranged* const before = below(place);
  if (before != nullptr && before->range.last >= range.first) return before;
  // The slot may be the leaf's bound, below which no other record starts: a range that ends below it is free.
  if (range.last.value < place.slot_->key) [[likely]]
    return nullptr;
  Ranged* const behind = above(place);
  return behind != nullptr && behind->range.first <= range.last ? behind : nullptr;
}

[[gnu::always_inline]] inline bool IovaTree::is_surely_free(Place place, IovaRange range) const {
  return place.slot_[-1].record->range.last < range.first && range.last.value < place.slot_->key;
}

[[gnu::always_inline]] inline void IovaTree::fill(Place place, Ranged& record) noexcept {
  *place.slot_ = {record.range.first.value, &record};
  ++place.leaf_->surplus;
  near_ = place.leaf_;
  near_slot_ = place.slot_;
}

// Uses the nearest repeat at or after the position, or else before it, and moves the slots in between.
[[gnu::always_inline]] inline void IovaTree::insert(Place place, Slot slot) {
  Leaf& leaf = *place.leaf_;
  Slot* at = place.slot_;
  const Slot* repeat = at;
  while (repeat->key != repeat[1].key) ++repeat;
  if (repeat != at && leaf.count() >= leaf_crowded) [[unlikely]]
    return split(place, slot);
  if (repeat < leaf.end()) [[likely]] {
    Slot carried = std::exchange(*at, slot);
    for (Slot* to = at; to != repeat;) std::swap(carried, *++to);
  } else {
    repeat = --at - 1;
    while (repeat->key != repeat[1].key) --repeat;
    Slot carried = std::exchange(*at, slot);
    for (Slot* to = at; to != repeat;) std::swap(carried, *--to);
  }
  ++leaf.surplus;
  near_ = &leaf;
  near_slot_ = at;
}

[[gnu::always_inline]] inline bool IovaTree::is_near(IovaRange range) const noexcept {
  assert(range.first <= range.last && range != (IovaRange{{0}, {above_all}}));  // else it may equal a sentinel
  return near_slot_->key == range.first.value && near_slot_->record->range.last == range.last;
}

[[gnu::always_inline]] inline bool IovaTree::seek(IovaRange range) noexcept {
  return is_near(range) || seek_anew(range);
}

[[gnu::always_inline]] inline Ranged* IovaTree::take_out() noexcept {
  Slot* slot = near_slot_;
  Ranged* const record = slot->record;
  --near_->surplus;
  if (slot[1].key != slot->key) [[likely]] {
    *slot = slot[1];
    return record;
  }
  const Slot* follower = slot + 2;
  while (follower->key == slot->key) ++follower;
  // Blanks are never written again. Without them, erasing in order would leave ever longer runs of repeats.
  const Slot repeated = is_blank(slot[-1]) ? slot[-1] : *follower;
  do {
    *slot = repeated;
  } while (++slot != follower);
  return record;
}

template <typename Visit>
void IovaTree::for_each(Visit&& visit) const {
  for (Leaf* leaf = leaf_of(0); leaf != nullptr; leaf = leaf->next) {
    for (const Slot* slot = leaf->begin(); slot != leaf->end(); ++slot) {
      if (slot->key != slot[1].key && !is_blank(*slot)) visit(*slot->record);
    }
  }
}

}  // namespace postern::memory
