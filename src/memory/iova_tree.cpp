// SPDX-License-Identifier: Apache-2.0
// IovaTree: the slow paths: splits full nodes, and joins or balances sparse ones.
#include "memory/iova_tree.hpp"

#include <algorithm>
#include <memory>
#include <utility>

namespace postern::memory {

// The children of up to two inner nodes, and the keys between them, in order.
struct IovaTree::Gathered {
  std::size_t count = 0;  // children
  std::array<std::uint64_t, 2 * inner_children> keys;
  std::array<void*, 2 * inner_children> children;

  void insert(std::size_t rank, std::uint64_t key, void* child) {
    std::copy_backward(&keys[rank], &keys[count - 1], &keys[count]);
    std::copy_backward(&children[rank + 1], &children[count], &children[count + 1]);
    keys[rank] = key;
    children[rank + 1] = child;
    ++count;
  }
};

IovaTree::IovaTree() : root_(nullptr), near_(new Leaf) {
  root_ = near_;
  near_slot_ = near_->end();
  write(*near_, nullptr, 0, above_all, Layout::low);
}

IovaTree::~IovaTree() { free_below(root_, levels_, nullptr); }

void IovaTree::clear() noexcept {
  Leaf* const kept = leaf_of(0);
  free_below(root_, levels_, kept);
  *kept = Leaf{};
  write(*kept, nullptr, 0, above_all, Layout::low);
  root_ = near_ = kept;
  near_slot_ = kept->end();
  levels_ = inners_ = 0;
  leaves_ = 1;
}

void IovaTree::free_below(void* node, std::size_t levels, const Leaf* spared) noexcept {
  if (levels == 0) {
    if (node != spared) delete static_cast<Leaf*>(node);
    return;
  }
  auto* const inner = static_cast<Inner*>(node);
  for (std::size_t i = 0; i < inner->count; ++i) free_below(inner->children[i], levels - 1, spared);
  delete inner;
}

Ranged* IovaTree::last_before(const Leaf& leaf) const {
  if (leaf.previous == nullptr) return nullptr;
  return leaf.previous->search(leaf.previous->bound())[-1].record;
}

// For key 0, which blanks also have.
IovaTree::Place IovaTree::lowest() const {
  Leaf* const leaf = leaf_of(0);
  Slot* slot = leaf->begin();
  while (is_blank(*slot)) ++slot;
  return {leaf, slot};
}

bool IovaTree::seek_anew(IovaRange range) noexcept {
  if (range.first.value == above_all) return false;
  const Place place = place_of(range.first.value);
  if (place.slot_->key != range.first.value || place.slot_->record->range.last != range.last) return false;
  near_ = place.leaf_;
  near_slot_ = place.slot_;
  return true;
}

Ranged* IovaTree::erase(IovaRange range) noexcept {
  if (!seek_anew(range)) return nullptr;
  Ranged* const record = take_out();
  if (is_sparse()) join();
  return record;
}

void IovaTree::move(Ranged& record, Iova first) {
  const Place from = place_of(record.range.first.value);
  if (from.leaf_->spans(first.value)) {
    Slot* slot = from.slot_;
    for (; slot->record == &record; ++slot) slot->key = first.value;
    if (slot - from.slot_ > repeats_too_many) spread(*from.leaf_);
  } else {
    insert(place_of(first.value), {first.value, &record});
    static_cast<void>(erase(record.range));
  }
  record.range.first = first;
}

// Shortens long runs of repeats, since moving a record costs one write for each of its repeats.
void IovaTree::spread(Leaf& leaf) noexcept {
  std::array<Slot, leaf_slots> all;
  const std::size_t count = read(leaf, all.data());
  write(leaf, all.data(), count, leaf.bound(),
        count < static_cast<std::size_t>(leaf_least) ? Layout::low : Layout::even);
  near_ = &leaf;
  near_slot_ = leaf.end();
}

void IovaTree::split(Place place, Slot slot) {
  Leaf& leaf = *place.leaf_;
  std::array<Slot, leaf_slots + 1> all;
  std::size_t count = read(leaf, all.data());
  Slot* newest = all.data() + count;
  for (; newest != all.data() && newest[-1].key > slot.key; --newest) *newest = newest[-1];
  *newest = slot;
  ++count;

  // With sequential keys, the lower leaf stays full.
  Layout layout = Layout::even;
  std::size_t left_count = count / 2;
  if (newest == all.data() + count - 1) {
    layout = Layout::low;
    left_count = count - 1;
  } else if (newest == all.data()) {
    layout = Layout::high;
    left_count = 1;
  }

  const Path path = path_to(leaf.low);
  std::size_t full = 0;
  while (full < levels_ && path[levels_ - 1 - full].node->count == inner_children) ++full;
  // All memory is allocated before anything changes.
  auto right = std::unique_ptr<Leaf>(new Leaf);
  std::array<std::unique_ptr<Inner>, most_levels> spares;
  std::array<Inner*, most_levels> spare_nodes{};
  for (std::size_t i = 0; i < full + static_cast<std::size_t>(full == levels_); ++i) {
    spares[i] = std::unique_ptr<Inner>(new Inner);
    spare_nodes[i] = spares[i].get();
  }

  const std::uint64_t middle = all[left_count].key;
  right->low = middle;
  right->previous = &leaf;
  right->next = leaf.next;
  if (leaf.next != nullptr) leaf.next->previous = right.get();
  write(*right, all.data() + left_count, count - left_count, leaf.bound(), layout);
  write(leaf, all.data(), left_count, middle, layout);
  leaf.next = right.get();
  ++leaves_;
  near_ = slot.key < middle ? &leaf : right.get();
  near_slot_ = near_->search(slot.key);
  insert_child(path, middle, right.release(), spare_nodes.data(), layout);
  for (auto& spare : spares) static_cast<void>(spare.release());
}

void IovaTree::insert_child(const Path& path, std::uint64_t key, void* child, Inner* const* spares, Layout layout) {
  for (std::size_t level = levels_; level-- > 0;) {
    Inner& node = *path[level].node;
    const std::size_t rank = path[level].rank;
    if (node.count < inner_children) {
      for (std::size_t i = node.count - 1; i > rank; --i) node.key(i) = node.key(i - 1);
      std::copy_backward(&node.children[rank + 1], node.children.data() + node.count,
                         node.children.data() + node.count + 1);
      node.key(rank) = key;
      node.children[rank + 1] = child;
      ++node.count;
      return;
    }
    Gathered all;
    read(node, all);
    all.insert(rank, key, child);
    std::size_t left_count = all.count / 2;
    if (layout == Layout::low && rank == inner_children - 1) left_count = all.count - 2;
    if (layout == Layout::high && rank == 0) left_count = 2;
    Inner& right = **spares++;
    ++inners_;
    write(node, all, 0, left_count);
    write(right, all, left_count, all.count - left_count);
    key = all.keys[left_count - 1];
    child = &right;
  }
  Gathered two;
  two.count = 2;
  two.keys[0] = key;
  two.children[0] = root_;
  two.children[1] = child;
  write(**spares, two, 0, 2);
  root_ = *spares;
  ++inners_;
  ++levels_;
  assert(levels_ <= most_levels);
}

// A sparse leaf is joined with a neighbour if that is sparse, too, and always when it is empty. Otherwise it is checked
// again when it has lost half of its records.
void IovaTree::join() noexcept {
  if (levels_ == 0) return;
  Leaf& leaf = *near_;
  const Path path = path_to(leaf.low);
  const Inner& parent = *path[levels_ - 1].node;
  const std::size_t rank = path[levels_ - 1].rank;
  const auto child = [&](std::size_t i) -> Leaf& { return *static_cast<Leaf*>(parent.children[i]); };
  if (rank != 0 && join(child(rank - 1), leaf, rank - 1, path)) return;
  if (rank + 1 != parent.count && join(leaf, child(rank + 1), rank, path)) return;
  const std::ptrdiff_t less = leaf.least / 2;
  leaf.surplus += leaf.least - less;
  leaf.least = less;
}

bool IovaTree::join(Leaf& left, Leaf& right, std::size_t rank, const Path& path) noexcept {
  if (left.count() + right.count() > leaf_joined && left.count() != 0 && right.count() != 0) return false;
  std::array<Slot, 2 * leaf_slots> all;
  std::size_t count = read(left, all.data());
  count += read(right, all.data() + count);
  write(left, all.data(), count, right.bound(), Layout::even);
  left.next = right.next;
  if (left.next != nullptr) left.next->previous = &left;
  near_ = &left;
  near_slot_ = left.end();
  delete &right;
  --leaves_;
  remove_child(path, levels_ - 1, rank);
  return true;
}

// Removes the child after `rank` from the path's node at this level, and balances the node with a neighbour if it is
// sparse then. Every inner node keeps at least two children.
void IovaTree::remove_child(const Path& path, std::size_t level, std::size_t rank) noexcept {
  for (;; --level) {
    Inner& node = *path[level].node;
    for (std::size_t i = rank; i + 2 < node.count; ++i) node.key(i) = node.key(i + 1);
    std::copy(node.children.data() + rank + 2, node.children.data() + node.count, node.children.data() + rank + 1);
    --node.count;
    node.key(node.count - 1) = above_all;
    if (level == 0) break;
    if (node.count >= inner_least) return;

    Inner& parent = *path[level - 1].node;
    rank = std::max<std::size_t>(path[level - 1].rank, 1) - 1;
    Inner& left = *static_cast<Inner*>(parent.children[rank]);
    Inner& right = *static_cast<Inner*>(parent.children[rank + 1]);
    Gathered all;
    read(left, all);
    all.keys[all.count - 1] = parent.key(rank);
    read(right, all);
    if (all.count > inner_joined) {
      const std::size_t left_count = all.count / 2;
      parent.key(rank) = all.keys[left_count - 1];
      write(left, all, 0, left_count);
      write(right, all, left_count, all.count - left_count);
      return;
    }
    write(left, all, 0, all.count);
    delete &right;
    --inners_;
  }
  auto* const top = static_cast<Inner*>(root_);
  if (top->count > 1) return;
  root_ = top->children[0];
  delete top;
  --inners_;
  --levels_;
}

IovaTree::Path IovaTree::path_to(std::uint64_t key) const {
  Path path;
  void* node = root_;
  for (std::size_t level = 0; level < levels_; ++level) {
    auto* const inner = static_cast<Inner*>(node);
    const std::size_t rank = inner->rank_of(key);
    path[level] = {inner, rank};
    node = inner->children[rank];
  }
  return path;
}

std::size_t IovaTree::read(Leaf& leaf, Slot* to) {
  Slot* const start = to;
  for (const Slot* slot = leaf.begin(); slot != leaf.end(); ++slot) {
    *to = *slot;
    to += slot->key != slot[1].key && !is_blank(*slot) ? 1 : 0;
  }
  return static_cast<std::size_t>(to - start);
}

void IovaTree::write(Leaf& leaf, const Slot* from, std::size_t count, std::uint64_t bound, Layout layout) {
  leaf.least = leaf_least;
  leaf.surplus = static_cast<std::ptrdiff_t>(count) - leaf.least;
  leaf.cells.front() = {0, sentinel(everything)};
  Slot* slot = leaf.begin();
  if (layout == Layout::high) slot = std::fill_n(slot, leaf_slots - count, *from);
  const std::size_t repeats = layout == Layout::even ? leaf_slots - count : 0;
  std::size_t shared = 0;
  for (const Slot* const end = from + count; from != end; ++from) {
    *slot++ = *from;
    for (shared += repeats; shared > count; shared -= count + 1) *slot++ = *from;
  }
  std::fill(slot, leaf.end() + 1, Slot{bound, sentinel(nothing)});
  leaf.end()[1] = leaf.end()[2] = {0, sentinel(nothing)};  // 0 is never the bound of a leaf
}

void IovaTree::read(Inner& inner, Gathered& to) {
  for (std::size_t i = 0; i < inner.count; ++i) to.children[to.count + i] = inner.children[i];
  for (std::size_t i = 0; i + 1 < inner.count; ++i) to.keys[to.count + i] = inner.key(i);
  to.count += inner.count;
}

void IovaTree::write(Inner& inner, const Gathered& from, std::size_t first, std::size_t count) {
  for (std::size_t i = 0; i < inner_children - 1; ++i) inner.key(i) = i + 1 < count ? from.keys[first + i] : above_all;
  for (std::size_t i = 0; i < count; ++i) inner.children[i] = from.children[first + i];
  inner.count = count;
}

}  // namespace postern::memory
