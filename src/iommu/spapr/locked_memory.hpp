// SPDX-License-Identifier: Apache-2.0
// What sPAPR counts as locked memory, computed from the device tree before a container is opened.
#pragma once

#include <span>
#include <vector>

#include "iommu/memory_to_map.hpp"

namespace postern::spapr {

// As BackendOps::locked_memory: of version 2, then of version 1.
[[nodiscard]] Result<std::vector<LockedMemoryNeed>> locked_memory(Kernel& kernel, const MemoryToMap& memory,
                                                                  std::span<const HostDevice> devices);

}  // namespace postern::spapr
