// SPDX-License-Identifier: Apache-2.0
// The known ids of an iommufd's objects.
#pragma once

#include <algorithm>

#include "transcript/world.hpp"

namespace postern::transcript {

[[nodiscard]] inline World::Ids& ids_of(World& world, const Place& iommufd) {
  return world.ids[world.index_of(iommufd, world.iommufds)];
}

// Usually one of these ids; its object may have been destroyed since.
[[nodiscard]] inline std::uint32_t some_id(World& world, const std::vector<std::uint32_t>& ids) {
  const std::uint64_t choice = world.random.next();
  const bool other = world.random.chance(7);
  if (ids.empty() || other) return static_cast<std::uint32_t>(choice % 12);
  return ids[choice % ids.size()];
}

inline void remember(std::vector<std::uint32_t>& ids, std::uint32_t id) {
  if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
}

inline void erase(std::vector<std::uint32_t>& ids, std::uint32_t id) {
  ids.erase(std::remove(ids.begin(), ids.end(), id), ids.end());
}

// The known mappings of an IOAS.
[[nodiscard]] inline std::vector<Mapping>& mappings_of(World& world, const Place& iommufd, std::uint32_t ioas) {
  return world.mappings[(world.index_of(iommufd, world.iommufds) + 1) << 32 | ioas];
}

// An IOAS with mappings if there is one.
[[nodiscard]] inline std::uint32_t some_mapped_ioas(World& world, const Place& iommufd) {
  std::vector<std::uint32_t> mapped;
  for (const std::uint32_t id : ids_of(world, iommufd).ioas) {
    if (!mappings_of(world, iommufd, id).empty()) mapped.push_back(id);
  }
  return some_id(world, mapped.empty() ? ids_of(world, iommufd).ioas : mapped);
}

}  // namespace postern::transcript
