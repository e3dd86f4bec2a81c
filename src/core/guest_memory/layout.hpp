// SPDX-License-Identifier: Apache-2.0
// GuestLayout: which memory is at which guest address; and LayoutChange: steps that turn one layout into another. Both
// only keep records: commit.cpp makes the mappings.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <postern/mapping.hpp>
#include <postern/result.hpp>

#include "base/words.hpp"

namespace postern::guest_memory {

// By their first addresses; they do not overlap.
using Pieces = std::map<Iova, Mapping>;

// Whether both are the same memory at the same place, with the same access.
[[nodiscard]] bool is_same(const Mapping& a, const Mapping& b);

// The piece that contains the address; else the next one above it; else end().
[[nodiscard]] Pieces::const_iterator at_or_above(const Pieces& pieces, Iova iova);

// Memory of which only some granules are mapped. Each is a piece of its own, so that it can go without the others.
struct SparseRegion {
  Mapping whole;
  std::uint64_t granule;
};
using SparseRegions = std::map<Iova, SparseRegion>;

class GuestLayout {
 public:
  [[nodiscard]] const Pieces& pieces() const noexcept { return pieces_; }
  [[nodiscard]] const SparseRegions& sparse() const noexcept { return sparse_; }
  [[nodiscard]] const Mapping* find(Iova iova) const;
  [[nodiscard]] std::optional<Iova> find(const std::byte* byte) const;
  [[nodiscard]] std::uint64_t total_length() const noexcept { return total_length_; }

  // Where the pieces of this process's memory are: from the address of a piece's last byte to its first iova.
  using Addresses = std::multimap<const std::byte*, Iova>;
  [[nodiscard]] static Addresses addresses_of(const Pieces& pieces);
  // Replaces pieces. Allocates nothing: `incoming` and `addresses`, which are those of `incoming`, are moved in.
  void replace(const Pieces& outgoing, Pieces& incoming, Addresses& addresses) noexcept;
  void set_sparse(SparseRegions sparse) noexcept { sparse_ = std::move(sparse); }

 private:
  Pieces pieces_;
  SparseRegions sparse_;
  Addresses addresses_;
  std::uint64_t total_length_ = 0;
  std::uint64_t longest_ = 0;  // of all pieces that there ever were
};

constexpr std::uint64_t most_granules = 16384;  // of a sparse region: a quarter of what type1 allows a container

// Steps on a layout, which itself stays as it is.
class LayoutChange {
 public:
  explicit LayoutChange(const GuestLayout& layout) : layout_(&layout), sparse_(layout.sparse()) {}

  // These are Transaction's functions of the same names.
  [[nodiscard]] Result<void> add(Iova first, const Memory& memory, Access access);
  [[nodiscard]] Result<void> remove(IovaRange range);
  [[nodiscard]] Result<void> set_access(IovaRange range, Access access);
  // With `most` granules at most.
  [[nodiscard]] Result<std::uint64_t> add_sparse(Iova first, const Memory& memory, std::uint64_t granule, Access access,
                                                 std::uint64_t most = most_granules);
  [[nodiscard]] Result<void> populate(IovaRange range);
  [[nodiscard]] Result<void> discard(IovaRange range);

  // Joins adjacent new pieces of one memory, and drops those that equal what they replace.
  void coalesce();
  [[nodiscard]] const Pieces& outgoing() const noexcept { return outgoing_; }  // pieces of the layout
  [[nodiscard]] const Pieces& incoming() const noexcept { return incoming_; }  // what replaces them
  [[nodiscard]] Pieces& incoming() noexcept { return incoming_; }
  [[nodiscard]] SparseRegions& sparse() noexcept { return sparse_; }  // after the change
  // The region that contains the address after the change; null: none.
  [[nodiscard]] const SparseRegion* sparse_at(Iova iova) const;

 private:
  [[nodiscard]] const Mapping* overlapping(IovaRange range) const;
  [[nodiscard]] const Mapping* piece_at(Iova iova) const;
  [[nodiscard]] std::optional<Iova> first_hole(IovaRange range) const;
  [[nodiscard]] Result<Mapping> check_new(const LazyText& step, Iova first, const Memory& memory, Access access) const;
  [[nodiscard]] Result<const SparseRegion*> check_granules(const LazyText& step, IovaRange range) const;
  // Cuts the range out of all pieces. Those inside it come back if they are given an access.
  void cut_out(IovaRange range, std::optional<Access> access);

  const GuestLayout* layout_;
  SparseRegions sparse_;
  Pieces outgoing_;
  Pieces incoming_;
};

}  // namespace postern::guest_memory
