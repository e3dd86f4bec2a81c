// SPDX-License-Identifier: Apache-2.0
// IovaTree: an ordered map of disjoint iova ranges, with very few instructions per operation.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>

#include "memory/search_step.hpp"

namespace postern::memory {

// The first member of each record in the tree. The tree does not own the records.
struct Ranged {
  IovaRange range;
};

// A B+tree from the first iova of a range to its record. 2^64-1 cannot be a first iova: it is the sentinel above all
// keys.
//
// A leaf is an array of fixed size with spare slots, which is searched without branches: a slot without its own record
// repeats the next one. After the last record, the leaf's upper bound is repeated; before the first, there may be
// blanks. So erase turns one slot into a repeat, and insert replaces a repeat: both move few slots, usually none. An
// inner node has its keys in the order of a search tree in an array (i, then 2i or 2i+1): two instructions per level.
// The leaf of the last change is tried first, so that unmap after map, and sequential maps, need no descent.
//
// Records may be changed in place if their order and first iovas stay the same. Only insert() and move() allocate
// memory; if it runs out, nothing has changed. Thread safety: one thread at a time.
class IovaTree {
  struct Leaf;
  struct Slot {
    std::uint64_t key;
    Ranged* record;
  };

 public:
  // A position at or between records. Any change of the tree invalidates it.
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

  // The position of the lowest record whose first iova is at or above `key`.
  [[nodiscard]] Place place_of(std::uint64_t key) const;
  [[nodiscard]] Ranged* below(Place place) const;  // the record before it, or null
  [[nodiscard]] Ranged* above(Place place) const;  // the record at or after it, or null

  // Whether the record at or after the position may start at or below this iova. Reads no record and no other leaf.
  [[nodiscard]] bool may_begin_by(Place place, Iova iova) const { return place.slot_->key <= iova.value; }

  [[nodiscard]] Ranged* at_or_below(Iova iova) const;  // the record with the greatest first <= iova, or null
  [[nodiscard]] Ranged* at_or_above(Iova iova) const;  // the record with the least first >= iova, or null
  // The lowest record that overlaps the range, or null. `place` is that of range.first.
  [[nodiscard]] Ranged* overlapping(Place place, IovaRange range) const;

  // Inserts a record at place_of(record.range.first). There must be no record with that first iova.
  void insert(Place place, Ranged& record) { insert(place, {record.range.first.value, &record}); }
  // Removes and returns the record of exactly this range; null if there is none.
  Ranged* erase(IovaRange range) noexcept;

  // The fast paths, to be inlined. place_above_0() is place_of(), except that for 0 the position may be among blanks,
  // where is_surely_free() is never true.
  [[nodiscard]] Place place_above_0(std::uint64_t key) const;
  // True: the range is free, and fill() may replace insert(). False: unknown.
  [[nodiscard]] bool is_surely_free(Place place, IovaRange range) const;
  [[nodiscard]] const Ranged& latest() const noexcept { return *near_slot_->record; }  // of fill, insert or seek
  [[nodiscard]] bool has_repeat(Place place) const { return place.slot_->key == place.slot_[1].key; }
  void fill(Place place, Ranged& record) noexcept;
  // erase() in steps. seek(): whether a record has exactly this range, not the whole space; is_near(): whether it was
  // found last. take_out() removes it. Call join() before any other change if the tree is sparse then.
  [[nodiscard]] bool is_near(IovaRange range) const noexcept;
  [[nodiscard]] bool seek(IovaRange range) noexcept;
  [[nodiscard]] bool seek_anew(IovaRange range) noexcept;  // for any range, but slower
  Ranged* take_out() noexcept;
  [[nodiscard]] bool is_sparse() const noexcept;
  void join() noexcept;

  // Changes the first iova of a record, without passing another record.
  void move(Ranged& record, Iova first);
  void clear() noexcept;

  // Calls visit(Ranged&) in order. It may change records, but not the tree.
  template <typename Visit>
  void for_each(Visit&& visit) const;

  [[nodiscard]] std::size_t bytes() const noexcept;

 private:
  static constexpr std::uint64_t above_all = ~std::uint64_t{0};
  static constexpr std::size_t leaf_slots = 63;    // with the bound after them, a power of two
  static constexpr std::size_t leaf_crowded = 40;  // with so many records, insert splits the leaf if it has no repeat
  static constexpr std::size_t leaf_joined = 30;   // most records of two leaves to be joined; no limit if one is empty
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
  enum class Layout : std::uint8_t { even, low, high };  // how the keys are spread over a leaf's slots

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

  // The record of blanks, with key 0, overlaps every range; that of the bound overlaps none.
  static constexpr Ranged everything{{{0}, {above_all}}};
  static constexpr Ranged nothing{{{above_all}, {0}}};
  [[nodiscard]] static Ranged* sentinel(const Ranged& record) { return const_cast<Ranged*>(&record); }

  void* root_;              // a Leaf if levels_ is 0
  std::size_t levels_ = 0;  // of inner nodes
  Leaf* near_;              // the leaf of the last change,
  Slot* near_slot_;         // and its slot, the first with its record
  std::size_t leaves_ = 1;
  std::size_t inners_ = 0;
};

}  // namespace postern::memory

#include "memory/iova_tree_inline.hpp"
