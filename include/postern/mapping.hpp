// SPDX-License-Identifier: Apache-2.0
// Mapping and ContainerLimits: a container's mappings and the limits on them.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/iova.hpp>
#include <postern/memory.hpp>
#include <vector>

namespace postern {

/// One mapping of a container. Plain data; thread safety: as Memory.
struct Mapping {
  IovaRange range;                     ///< where the devices see the memory
  Memory memory;                       ///< as it was given to Container::map()
  Access access = Access::read_write;  ///< allowed device accesses
};

/// What the IOMMUs of the attached devices support. Changes when a device attaches or detaches. Plain data; thread
/// safety: as std::vector.
struct ContainerLimits {
  std::vector<IovaRange> usable_ranges;        ///< sorted, not overlapping
  std::uint64_t page_sizes = 0;                ///< bitmap of bytes: 0x40201000 is 4 KiB, 2 MiB and 1 GiB
  std::optional<std::uint64_t> mapping_limit;  ///< maximum number of mappings; missing: limited by memory only
};

}  // namespace postern
