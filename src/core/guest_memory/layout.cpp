// SPDX-License-Identifier: Apache-2.0
// GuestLayout and LayoutChange: cutting and joining pieces of memory.
#include "core/guest_memory/layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <iterator>

#include "base/words.hpp"
#include "iommu/file_memory.hpp"
#include "kernel/ioctl.hpp"

namespace postern::guest_memory {
namespace {

constexpr std::uint64_t page = 4096;  // a container may have larger ones: commit() learns of them
constexpr IovaRange whole_space{{0}, {~std::uint64_t{0}}};

Mapping part_of(const Mapping& piece, IovaRange range, Access access) {
  return {
      .range = range, .memory = piece.memory.part(range.first - piece.range.first, range.length()), .access = access};
}

// Whether `next` goes on where the piece ends: in the guest, and in one and the same memory.
bool continues(const Mapping& piece, const Mapping& next) {
  const Memory& memory = piece.memory;
  if (piece.range.last + 1 != next.range.first || piece.access != next.access) return false;
  if (memory.kind() != next.memory.kind() || memory.file() != next.memory.file()) return false;
  if (memory.kind() == Memory::Kind::address) return memory.address() + memory.length() == next.memory.address();
  return memory.kind() == Memory::Kind::file && memory.offset() + memory.length() == next.memory.offset();
}

tl::unexpected<Error> refuse(int code, ErrorKind kind, const LazyText& step, std::string reason) {
  return refusal({.result = -code, .kind = kind, .object = step(), .reason = std::move(reason)});
}

// The range, if it is whole pages below 2^64.
Result<IovaRange> checked(const LazyText& step, Iova first, std::uint64_t length) {
  if (length == 0) return refuse(EINVAL, ErrorKind::invalid_argument, step, "it is empty");
  const auto range = IovaRange::from_length(first, length);
  if (!range) return refuse(EOVERFLOW, ErrorKind::out_of_range, step, "it runs past 2^64");
  if (((first.value | length) & (page - 1)) != 0) {
    return refuse(EINVAL, ErrorKind::invalid_argument, step,
                  fmt::format("{} must begin and end at a multiple of {}", to_string(*range), size_text(page)));
  }
  return *range;
}

// All of the address space has a length of 2^64, which is no number of bytes.
Result<void> checked(const LazyText& step, IovaRange range) {
  if (range.last < range.first) return refuse(EINVAL, ErrorKind::invalid_argument, step, inverted_text(range));
  if (range == whole_space) return {};
  POSTERN_TRY(checked(step, range.first, range.length()));
  return {};
}

bool is_in(const Pieces& pieces, Pieces::const_iterator piece, IovaRange range) {
  return piece != pieces.end() && piece->second.range.overlaps(range);
}

// The memory, and more bytes behind it.
Memory extended(const Memory& memory, std::uint64_t more) {
  const std::uint64_t length = memory.length() + more;
  if (memory.kind() == Memory::Kind::address) return std::span(memory.address(), length);
  return Memory::of_file(memory.file(), memory.offset(), length);
}

// The iova of the last byte of all has no piece behind it.
std::optional<Iova> behind(IovaRange range) {
  if (range.last.value == ~std::uint64_t{0}) return std::nullopt;
  return range.last + 1;
}

}  // namespace

bool is_same(const Mapping& a, const Mapping& b) {
  return a.range == b.range && a.access == b.access && a.memory.kind() == b.memory.kind() &&
         a.memory.file() == b.memory.file() && a.memory.address() == b.memory.address() &&
         a.memory.offset() == b.memory.offset();
}

Pieces::const_iterator at_or_above(const Pieces& pieces, Iova iova) {
  const auto above = pieces.upper_bound(iova);
  if (above == pieces.begin()) return above;
  const auto below = std::prev(above);
  return below->second.range.contains(iova) ? below : above;
}

const Mapping* GuestLayout::find(Iova iova) const {
  const auto piece = at_or_above(pieces_, iova);
  return piece != pieces_.end() && piece->second.range.contains(iova) ? &piece->second : nullptr;
}

std::optional<Iova> GuestLayout::find(const std::byte* byte) const {
  std::optional<Iova> lowest;
  // By their last bytes. A piece that ends further behind the byte than the longest piece is long begins behind it,
  // too.
  for (auto entry = addresses_.lower_bound(byte); entry != addresses_.end(); ++entry) {
    if (static_cast<std::uint64_t>(entry->first - byte) >= longest_) break;
    const Mapping& piece = pieces_.at(entry->second);
    if (piece.memory.address() > byte) continue;
    const Iova iova = piece.range.first + static_cast<std::uint64_t>(byte - piece.memory.address());
    if (!lowest || iova < *lowest) lowest = iova;
  }
  return lowest;
}

GuestLayout::Addresses GuestLayout::addresses_of(const Pieces& pieces) {
  Addresses addresses;
  for (const auto& [first, piece] : pieces) {
    if (piece.memory.kind() != Memory::Kind::address) continue;
    addresses.emplace(piece.memory.address() + (piece.memory.length() - 1), first);
  }
  return addresses;
}

void GuestLayout::replace(const Pieces& outgoing, Pieces& incoming, Addresses& addresses) noexcept {
  for (const auto& [first, piece] : outgoing) {
    if (piece.memory.kind() == Memory::Kind::address) {
      const auto same = addresses_.equal_range(piece.memory.address() + (piece.memory.length() - 1));
      const auto entry =
          std::find_if(same.first, same.second, [iova = first](const auto& each) { return each.second == iova; });
      addresses_.erase(entry);
    }
    total_length_ -= piece.range.length();
    pieces_.erase(first);
  }
  for (const auto& [first, piece] : incoming) {
    total_length_ += piece.range.length();
    longest_ = std::max(longest_, piece.range.length());
  }
  pieces_.merge(incoming);
  addresses_.merge(addresses);
}

Result<Mapping> LayoutChange::check_new(const LazyText& step, Iova first, const Memory& memory, Access access) const {
  if (!is_valid(access)) return refuse(EINVAL, ErrorKind::invalid_argument, step, access_fault(access));
  const IovaRange range = POSTERN_TRY(checked(step, first, memory.length()));
  if (memory.kind() != Memory::Kind::address) POSTERN_TRY(check_is_in_file(memory, step));
  const std::uint64_t place =
      memory.kind() == Memory::Kind::address ? reinterpret_cast<std::uintptr_t>(memory.address()) : memory.offset();
  if ((place & (page - 1)) != 0) {
    return refuse(EINVAL, ErrorKind::invalid_argument, step,
                  fmt::format("the memory must begin at a multiple of {}", size_text(page)));
  }
  if (const Mapping* const taken = overlapping(range)) {
    return refuse(EEXIST, ErrorKind::already_exists, step, fmt::format("it overlaps {}", to_string(taken->range)));
  }
  return Mapping{.range = range, .memory = memory, .access = access};
}

Result<void> LayoutChange::add(Iova first, const Memory& memory, Access access) {
  const LazyText step = [&] {
    return fmt::format("add {}+{} to guest memory", to_string(first), size_text(memory.length()));
  };
  auto piece = POSTERN_TRY(check_new(step, first, memory, access));
  incoming_.emplace(first, std::move(piece));
  return {};
}

Result<std::uint64_t> LayoutChange::add_sparse(Iova first, const Memory& memory, std::uint64_t granule, Access access,
                                               std::uint64_t most) {
  const LazyText step = [&] {
    return fmt::format("add sparse {}+{} to guest memory", to_string(first), size_text(memory.length()));
  };
  auto whole = POSTERN_TRY(check_new(step, first, memory, access));
  if (!std::has_single_bit(granule) || granule < page) {
    return refuse(EINVAL, ErrorKind::invalid_argument, step,
                  fmt::format("the granule must be a power of two of at least {}", size_text(page)));
  }
  granule = std::max(granule, std::bit_ceil((memory.length() + most - 1) / most));
  if ((memory.length() & (granule - 1)) != 0) {
    return refuse(EINVAL, ErrorKind::invalid_argument, step,
                  fmt::format("the length must be a multiple of the granule, {}", size_text(granule)));
  }
  sparse_.emplace(first, SparseRegion{.whole = std::move(whole), .granule = granule});
  return granule;
}

// The region, if the range is granules of one.
Result<const SparseRegion*> LayoutChange::check_granules(const LazyText& step, IovaRange range) const {
  POSTERN_TRY(checked(step, range));
  const SparseRegion* const region = sparse_at(range.first);
  if (region == nullptr || range.last > region->whole.range.last)
    return refuse(ENOENT, ErrorKind::not_found, step, "it is not within a sparse region");
  if ((((range.first - region->whole.range.first) | range.length()) & (region->granule - 1)) != 0) {
    return refuse(EINVAL, ErrorKind::invalid_argument, step,
                  fmt::format("it must be granules of {}, from {} on", size_text(region->granule),
                              to_string(region->whole.range.first)));
  }
  return region;
}

Result<void> LayoutChange::populate(IovaRange range) {
  const LazyText step = [&] { return fmt::format("populate {} of guest memory", to_string(range)); };
  const SparseRegion* const region = POSTERN_TRY(check_granules(step, range));
  Pieces added;
  for (std::uint64_t at = 0; at < range.length(); at += region->granule) {
    const IovaRange granule{range.first + at, range.first + (at + region->granule - 1)};
    if (piece_at(granule.first) != nullptr) {
      return refuse(EEXIST, ErrorKind::already_exists, step,
                    fmt::format("{} is populated already", to_string(granule)));
    }
    added.emplace(granule.first, part_of(region->whole, granule, region->whole.access));
  }
  incoming_.merge(added);
  return {};
}

Result<void> LayoutChange::discard(IovaRange range) {
  const LazyText step = [&] { return fmt::format("discard {} of guest memory", to_string(range)); };
  const SparseRegion* const region = POSTERN_TRY(check_granules(step, range));
  for (std::uint64_t at = 0; at < range.length(); at += region->granule) {
    if (piece_at(range.first + at) == nullptr) {
      return refuse(ENOENT, ErrorKind::not_found, step,
                    fmt::format("{} is not populated", to_string(range.first + at)));
    }
  }
  cut_out(range, std::nullopt);
  return {};
}

// Sparse regions are removed as a whole, whatever of them is populated.
Result<void> LayoutChange::remove(IovaRange range) {
  const LazyText step = [&] { return fmt::format("remove {} from guest memory", to_string(range)); };
  POSTERN_TRY(checked(step, range));
  if (const auto hole = first_hole(range))
    return refuse(ENOENT, ErrorKind::not_found, step, fmt::format("there is none at {}", to_string(*hole)));
  for (auto region = sparse_.begin(); region != sparse_.end(); ++region) {
    const IovaRange whole = region->second.whole.range;
    if (whole.overlaps(range) && !range.contains(whole)) {
      return refuse(EINVAL, ErrorKind::invalid_argument, step,
                    fmt::format("{} is sparse: remove all of it, or discard granules", to_string(whole)));
    }
  }
  cut_out(range, std::nullopt);
  std::erase_if(sparse_, [&](const auto& region) { return range.contains(region.second.whole.range); });
  return {};
}

Result<void> LayoutChange::set_access(IovaRange range, Access access) {
  const LazyText step = [&] { return fmt::format("set the access of {} in guest memory", to_string(range)); };
  if (!is_valid(access)) return refuse(EINVAL, ErrorKind::invalid_argument, step, access_fault(access));
  POSTERN_TRY(checked(step, range));
  if (const auto hole = first_hole(range))
    return refuse(ENOENT, ErrorKind::not_found, step, fmt::format("there is none at {}", to_string(*hole)));
  for (const auto& [first, region] : sparse_) {
    if (region.whole.range.overlaps(range)) {
      return refuse(EINVAL, ErrorKind::invalid_argument, step,
                    fmt::format("{} is sparse, and its access stays", to_string(region.whole.range)));
    }
  }
  cut_out(range, access);
  return {};
}

const SparseRegion* LayoutChange::sparse_at(Iova iova) const {
  const auto above = sparse_.upper_bound(iova);
  if (above == sparse_.begin()) return nullptr;
  const SparseRegion& region = std::prev(above)->second;
  return region.whole.range.contains(iova) ? &region : nullptr;
}

const Mapping* LayoutChange::overlapping(IovaRange range) const {
  const auto sparse = sparse_.upper_bound(range.last);
  if (sparse != sparse_.begin() && std::prev(sparse)->second.whole.range.overlaps(range))
    return &std::prev(sparse)->second.whole;
  const Pieces& pieces = layout_->pieces();
  for (auto piece = at_or_above(pieces, range.first); is_in(pieces, piece, range); ++piece) {
    if (!outgoing_.contains(piece->first)) return &piece->second;
  }
  const auto added = at_or_above(incoming_, range.first);
  return is_in(incoming_, added, range) ? &added->second : nullptr;
}

// A new one, or one of the layout that stays.
const Mapping* LayoutChange::piece_at(Iova iova) const {
  const auto added = at_or_above(incoming_, iova);
  if (added != incoming_.end() && added->second.range.contains(iova)) return &added->second;
  const Mapping* const piece = layout_->find(iova);
  return piece != nullptr && !outgoing_.contains(piece->range.first) ? piece : nullptr;
}

// Walks from piece to piece. A sparse region has no holes if all of it is in the range.
std::optional<Iova> LayoutChange::first_hole(IovaRange range) const {
  Iova at = range.first;
  for (;;) {
    const Mapping* piece = piece_at(at);
    if (piece == nullptr) {
      const SparseRegion* const region = sparse_at(at);
      if (region == nullptr || !range.contains(region->whole.range)) return at;
      piece = &region->whole;
    }
    const auto next = behind(piece->range);
    if (!next || *next > range.last) return std::nullopt;
    at = *next;
  }
}

// Everything that needs memory comes before the first change.
void LayoutChange::cut_out(IovaRange range, std::optional<Access> access) {
  Pieces kept;
  const auto cut = [&](const Mapping& piece) {
    const IovaRange inside{std::max(piece.range.first, range.first), std::min(piece.range.last, range.last)};
    const auto keep = [&](IovaRange part, Access with) { kept.emplace(part.first, part_of(piece, part, with)); };
    if (piece.range.first < inside.first) keep({piece.range.first, inside.first - 1}, piece.access);
    if (access) keep(inside, *access);
    if (inside.last < piece.range.last) keep({inside.last + 1, piece.range.last}, piece.access);
  };
  Pieces leaving;
  const Pieces& pieces = layout_->pieces();
  for (auto piece = at_or_above(pieces, range.first); is_in(pieces, piece, range); ++piece) {
    if (outgoing_.contains(piece->first)) continue;
    leaving.insert(*piece);
    cut(piece->second);
  }
  const auto first_new = at_or_above(incoming_, range.first);
  auto end_of_new = first_new;
  for (; is_in(incoming_, end_of_new, range); ++end_of_new) cut(end_of_new->second);

  incoming_.erase(first_new, end_of_new);
  incoming_.merge(kept);
  outgoing_.merge(leaving);
}

void LayoutChange::coalesce() {
  for (auto piece = incoming_.begin(); piece != incoming_.end();) {
    const auto next = std::next(piece);
    if (next == incoming_.end() || !continues(piece->second, next->second) || sparse_at(piece->first) != nullptr ||
        sparse_at(next->first) != nullptr) {
      piece = next;
      continue;
    }
    Mapping& whole = piece->second;
    whole.range.last = next->second.range.last;
    whole.memory = extended(whole.memory, next->second.memory.length());
    incoming_.erase(next);
  }
  for (auto piece = outgoing_.begin(); piece != outgoing_.end();) {
    const auto same = incoming_.find(piece->first);
    if (same != incoming_.end() && is_same(piece->second, same->second)) {
      incoming_.erase(same);
      piece = outgoing_.erase(piece);
    } else {
      ++piece;
    }
  }
}

}  // namespace postern::guest_memory
