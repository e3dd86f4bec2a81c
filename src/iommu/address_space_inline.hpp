// SPDX-License-Identifier: Apache-2.0
// AddressSpace: the fast paths of map() and unmap(). Counted in instructions by bench/run container: one more is 0.01 %
// of a map and unmap with type1. Rare cases are in separate functions, which are called last: then no registers must be
// saved for them.
#pragma once

#include "iommu/address_space.hpp"

namespace postern {

// Whether the range is not empty, and ends below 2^64.
[[gnu::always_inline]] inline bool ends_behind(std::uint64_t first, std::uint64_t length) {
  return first < first + length;
}

// After the system call only the result is needed: an error takes the arguments from the shadow map.
[[gnu::always_inline]] inline Result<void> AddressSpace::map_inserted(Iova iova, std::uint64_t length, void* address,
                                                                      Access access) {
  CallResult mapped;
  try {
    mapped = backend_->map(iova, length, address, access);
  } catch (...) {  // OnThrow would take fifty instructions even if nothing is thrown
    mappings_.erase(mappings_.latest().range);
    throw;
  }
  if (mapped.result < 0) [[unlikely]]
    return undo_latest(mapped);
  return {};
}

// One combined check. map_slowly() finds out which part of it failed.
[[gnu::always_inline]] inline Result<void> AddressSpace::map(Iova iova, std::span<std::byte> memory, Access access) {
  void* const address = memory.data();
  const std::uint64_t length = memory.size();
  const IovaRange range{iova, iova + (length - 1)};
  const bool fits = ((iova.value | address_of(address) | length) & unusual_) == 0 && length != 0 &&
                    likely_range_.contains(range) && !mappings_.is_full();
  if (!fits) [[unlikely]]
    return map_slowly(range, memory, access);
  const ShadowMap::Place place = mappings_.place_of(range);
  MappingRecord* const mapping = mappings_.begin_insert(place, range, address, access);
  if (mapping == nullptr) [[unlikely]]
    return map_slowly(range, memory, access);
  if (!mappings_.insert_quickly(place, *mapping)) [[unlikely]]
    return map_inserting(place, mapping);
  return map_inserted(iova, length, address, access);
}

[[gnu::always_inline]] inline Result<void> AddressSpace::unmap_found(Iova iova, std::uint64_t length) {
  if (const int result = backend_->unmap(iova, length); result != 0) [[unlikely]]
    return unmap_failed(result);
  mappings_.erase_found();
  return {};
}

// Usually the last mapping is unmapped as it was mapped. unmap_several() handles ranges that are empty, overflow or end
// at the last address, which may look like a sentinel in the record of mappings.
[[gnu::always_inline]] inline Result<void> AddressSpace::unmap(Iova iova, std::uint64_t length) {
  const IovaRange range{iova, iova + (length - 1)};
  if (!ends_behind(iova.value, length) || !unmaps_quickly_ || !mappings_.is_latest(range)) [[unlikely]]
    return unmap_seeking(range, length);
  return unmap_found(iova, length);
}

}  // namespace postern
