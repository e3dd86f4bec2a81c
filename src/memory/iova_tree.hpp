// SPDX-License-Identifier: Apache-2.0
// IovaTree: an ordered map of disjoint iova ranges, for very few instructions an operation.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>

#include "memory/search_step.hpp"

namespace postern::memory {

// What the tree holds begins with this. The tree owns none of it.
struct Ranged {
  IovaRange range;
};

// A B+tree from the first iova of a range to its record. 2^64-1 cannot be a first iova: it stands for "above all".
//
// A leaf is searched without branches, as an array of fixed size that has room to spare: a slot without a record of its
// own repeats the one behind it. Behind the last record the leaf's upper bound is repeated, and before the first there
// may be blanks. So an erase makes a repeat of one slot, and an insert takes the place of a repeat: either moves few
// slots, mostly none. An inner node has its keys in the order of a search tree in an array (i, then 2i or 2i+1): two
// instructions a level. The leaf of the last change is tried first, so that unmap after map, and mapping in sequence,
// skip the way down.
//
// Records may be changed in place as long as their order and firsts stay. Memory may run out in insert() and move()
// alone, and then nothing has changed. Thread rules: one thread at a time.
class IovaTree {
  struct Leaf;
  struct Slot {
    std::uint64_t key;
    Ranged* record;
  };

 public:
  // A place between or at records; any change of the tree ends its use.
  class Place {
    friend class IovaTree;
    Place(Leaf* leaf, Slot* slot) : leaf_(leaf), slot_(slot) {}
    Leaf* leaf_;
    Slot* slot_;
  };

  IovaTree();
  ~IovaTree();
  IovaTree(const IovaTree&) = delete;
  IovaTree& operator=(const IovaTree&) = delete;

  // Before the lowest record whose first is `key` or above, and behind all those below.
  [[nodiscard]] Place place_of(std::uint64_t key) const;
  [[nodiscard]] Ranged* below(Place place) const;  // the record before the place, or null
  [[nodiscard]] Ranged* above(Place place) const;  // the record behind it, or null

  // Whether the record behind the place may begin at this iova or below. Looks at no record, nor at another leaf.
  [[nodiscard]] bool may_begin_by(Place place, Iova iova) const { return place.slot_->key <= iova.value; }

  [[nodiscard]] Ranged* at_or_below(Iova iova) const;  // the record with the greatest first <= iova, or null
  [[nodiscard]] Ranged* at_or_above(Iova iova) const;  // the record with the least first >= iova, or null
  // The lowest record that overlaps the range, or null. `place` is that of range.first.
  [[nodiscard]] Ranged* overlapping(Place place, IovaRange range) const;

  // Puts a record in at place_of(record.range.first), where no record with that first may be.
  void insert(Place place, Ranged& record) { insert(place, {record.range.first.value, &record}); }
  // Takes out the record of exactly this range; null where there is none.
  Ranged* erase(IovaRange range) noexcept;

  // The short ways, to be inlined. place_above_0() is place_of(), except that for 0 the place may be among blanks;
  // nothing is_surely_free() there.
  [[nodiscard]] Place place_above_0(std::uint64_t key) const;
  // True: the range is free, and fill() does for insert(). False says nothing.
  [[nodiscard]] bool is_surely_free(Place place, IovaRange range) const;
  [[nodiscard]] const Ranged& latest() const noexcept { return *near_slot_->record; }  // filled, inserted or sought
  [[nodiscard]] bool has_repeat(Place place) const { return place.slot_->key == place.slot_[1].key; }
  void fill(Place place, Ranged& record) noexcept;
  // erase() in thirds. seek(): whether there is a record of exactly this range, which take_out() then takes out if
  // nothing has changed in between. Not for the whole space, nor a range that ends before it begins: sentinels do that.
  // join() is due, before any other change, where that leaves the tree sparse.
  [[nodiscard]] bool seek(IovaRange range) noexcept;
  [[nodiscard]] bool seek_anew(IovaRange range) noexcept;  // for any range, but slower
  Ranged* take_out() noexcept;
  [[nodiscard]] bool is_sparse() const noexcept;
  void join() noexcept;

  // Gives a record another first iova, which passes no other record.
  void move(Ranged& record, Iova first);
  void clear() noexcept;

  // Calls visit(Ranged&) in order. It may change records, but not the tree.
  template <typename Visit>
  void for_each(Visit&& visit) const;

  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  static constexpr std::uint64_t above_all = ~std::uint64_t{0};
  static constexpr std::size_t leaf_slots = 63;    // with the bound behind them, a power of two
  static constexpr std::size_t leaf_crowded = 40;  // as many records, and an insert that finds no repeat splits it
  static constexpr std::size_t leaf_joined = 30;   // the most that two leaves to be joined hold; any, if one is empty
  static constexpr std::ptrdiff_t leaf_least = 12;
  static constexpr std::ptrdiff_t repeats_too_many = 16;
  static constexpr std::size_t inner_children = 64;  // a power of two
  static constexpr std::size_t inner_least = 20;
  static constexpr std::size_t inner_joined = 48;
  static constexpr std::size_t most_levels = 16;

  struct Inner;
  struct Step {
    Inner* node;
    std::size_t rank;
  };
  using Path = std::array<Step, most_levels>;  // from the root down
  struct Gathered;
  enum class Layout : std::uint8_t { even, low, high };  // where a leaf's keys go among its slots

  [[nodiscard]] Leaf* leaf_of(std::uint64_t key) const;
  [[nodiscard]] Place lowest() const;
  [[nodiscard]] static bool is_blank(const Slot& slot) { return slot.record == &everything; }
  [[nodiscard]] Ranged* last_before(const Leaf& leaf) const;
  void insert(Place place, Slot slot);
  [[gnu::noinline]] void split(Place place, Slot slot);
  [[gnu::noinline]] void spread(Leaf& leaf) noexcept;
  void insert_child(const Path& path, std::uint64_t key, void* child, Inner* const* spares, Layout layout);
  bool join(Leaf& left, Leaf& right, std::size_t rank, const Path& path) noexcept;
  void remove_child(const Path& path, std::size_t level, std::size_t rank) noexcept;
  [[nodiscard]] Path path_to(std::uint64_t key) const;
  void free_below(void* node, std::size_t levels, const Leaf* spared) noexcept;
  static std::size_t read(Leaf& leaf, Slot* to);
  static void write(Leaf& leaf, const Slot* from, std::size_t count, std::uint64_t bound, Layout layout);
  static void read(Inner& inner, Gathered& to);
  static void write(Inner& inner, const Gathered& from, std::size_t first, std::size_t count);

  // The record of blanks, whose key is 0, seems to overlap whatever is asked for; that of the bound is no range at all.
  static constexpr Ranged everything{{{0}, {above_all}}};
  static constexpr Ranged nothing{{{above_all}, {0}}};
  [[nodiscard]] static Ranged* sentinel(const Ranged& record) { return const_cast<Ranged*>(&record); }

  void* root_;              // a Leaf where levels_ is 0
  std::size_t levels_ = 0;  // of inner nodes
  Leaf* near_;              // the leaf of the last change,
  Slot* near_slot_;         // and its slot, which repeats none before it
  std::size_t leaves_ = 1;
  std::size_t inners_ = 0;
};

}  // namespace postern::memory

#include "memory/iova_tree_inline.hpp"
