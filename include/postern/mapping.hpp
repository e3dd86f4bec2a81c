// SPDX-License-Identifier: Apache-2.0
// Mapping and ContainerLimits: what a container has mapped, and what it could map.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/iova.hpp>
#include <vector>

namespace postern {

// Plain data; thread rules: as for std::vector.

// One mapping of a container: this memory is seen by the devices at this range.
struct Mapping {
  IovaRange range;
  void* address = nullptr;
  Access access = Access::read_write;
};

// What an IOMMU can do for the devices that are attached now; it changes when a device joins or leaves.
struct ContainerLimits {
  std::vector<IovaRange> usable_ranges;        // ordered, apart from each other
  std::uint64_t page_sizes = 0;                // bitmap, in bytes: 0x40201000 is 4 KiB, 2 MiB and 1 GiB
  std::optional<std::uint64_t> mapping_limit;  // how many mappings the kernel takes; missing: as many as memory allows
};

}  // namespace postern
