// SPDX-License-Identifier: Apache-2.0
// find_free_range(): finds unmapped iovas.
#include "memory/free_range.hpp"

#include <algorithm>
#include <bit>

namespace postern {
namespace {

// Returns the first multiple of `alignment` at or above the iova; nothing if that is 2^64.
std::optional<std::uint64_t> aligned_up(std::uint64_t value, std::uint64_t alignment) {
  const std::uint64_t up = (value + alignment - 1) & ~(alignment - 1);
  return up >= value ? std::optional(up) : std::nullopt;
}

std::optional<Iova> find_in(const ShadowMap& mappings, IovaRange where, std::uint64_t length, std::uint64_t alignment) {
  for (std::uint64_t from = std::max<std::uint64_t>(where.first.value, 1);;) {
    const auto first = aligned_up(from, alignment);
    if (!first) return std::nullopt;
    const auto range = IovaRange::from_length({*first}, length);
    if (!range || !where.contains(*range)) return std::nullopt;
    const auto taken = mappings.first_overlapping(*range);
    if (!taken) return range->first;
    if (taken->last.value == ~std::uint64_t{0}) return std::nullopt;
    from = taken->last.value + 1;
  }
}

std::optional<Iova> find_above(const ShadowMap& mappings, std::span<const IovaRange> usable,
                               const FreeRangeRequest& request, std::uint64_t alignment, Iova least) {
  for (const IovaRange range : usable) {
    const IovaRange part{std::max({range.first, request.within.first, least}),
                         std::min(range.last, request.within.last)};
    if (part.last < part.first) continue;
    if (const auto found = find_in(mappings, part, request.length, alignment)) return found;
  }
  return std::nullopt;
}

}  // namespace

std::optional<Iova> find_free_range(const ShadowMap& mappings, std::span<const IovaRange> usable,
                                    const FreeRangeRequest& request, Iova& hint) {
  const std::uint64_t smallest = request.page_sizes & -request.page_sizes;
  // The page sizes up to the length, largest first.
  for (std::uint64_t sizes = request.page_sizes & (std::bit_floor(request.length) * 2 - 1); sizes != 0;) {
    const std::uint64_t alignment = std::bit_floor(sizes);
    sizes &= ~alignment;
    for (const Iova least : {hint, Iova{0}}) {
      const auto found = find_above(mappings, usable, request, alignment, least);
      if (!found) continue;
      hint = *found + request.length;
      return found;
    }
    if (alignment == smallest) break;
  }
  return std::nullopt;
}

}  // namespace postern
