// SPDX-License-Identifier: Apache-2.0
// ShadowMap: inserts and erases mappings, and checks unmaps.
#include "memory/shadow_map.hpp"

namespace postern {

const MappingRecord* ShadowMap::insert(IovaRange range, void* address, Access access) {
  const Place place = tree_.place_of(range.first.value);
  if (const auto* const taken = tree_.overlapping(place, range)) return static_cast<const MappingRecord*>(taken);
  insert_at(place, mappings_.take({{range}, address, access}));
  return nullptr;
}

void ShadowMap::insert_at(Place place, MappingRecord* mapping) {
  try {
    tree_.insert(place, *mapping);
  } catch (...) {
    mappings_.give_back(mapping);
    throw;
  }
}

bool ShadowMap::erase(IovaRange range) noexcept {
  if (!tree_.seek_anew(range)) return false;
  erase_found();
  return true;
}

void ShadowMap::tidy() noexcept {
  if (tree_.is_sparse()) tree_.join();
  if (mappings_.is_sparse()) mappings_.trim();
}

std::size_t ShadowMap::erase_within(IovaRange range) noexcept {
  std::size_t erased = 0;
  for (const MappingRecord* mapping = at_or_above(range.first); mapping != nullptr;
       mapping = at_or_above(range.first)) {
    if (mapping->range.last > range.last || !erase(mapping->range)) break;
    ++erased;
  }
  return erased;
}

void ShadowMap::clear() noexcept {
  tree_.clear();
  mappings_.clear();
}

std::optional<IovaRange> ShadowMap::first_overlapping(IovaRange range) const {
  const MappingRecord* found = find(range.first);
  if (found == nullptr) found = at_or_above(range.first);
  if (found == nullptr || found->range.first > range.last) return std::nullopt;
  return found->range;
}

ShadowMap::Cover ShadowMap::cover(IovaRange range) const {
  const MappingRecord* const first = find(range.first);
  if (first != nullptr && (first->range.first < range.first || first->range.last > range.last)) {
    return {Cover::Kind::split, first};
  }
  const MappingRecord* const last = find(range.last);
  if (last != nullptr && last->range.last > range.last) return {Cover::Kind::split, last};
  if (first != nullptr) return {Cover::Kind::whole, first};
  const MappingRecord* const inside = at_or_above(range.first);
  if (inside == nullptr || inside->range.first > range.last) return {Cover::Kind::nothing, nullptr};
  return {Cover::Kind::whole, inside};
}

std::size_t ShadowMap::memory_bytes() const noexcept { return sizeof(*this) + tree_.bytes() + mappings_.bytes(); }

}  // namespace postern
