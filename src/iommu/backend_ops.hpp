// SPDX-License-Identifier: Apache-2.0
// BackendOps: what is behind a Backend: what it needs, what it counts as locked memory, and how its containers are
// opened.
#pragma once

#include <memory>
#include <postern/backend.hpp>
#include <span>

#include "iommu/backend_container.hpp"
#include "iommu/memory_to_map.hpp"
#include "iommu/requirement.hpp"

namespace postern {

struct BackendOps {
  std::span<const Requirement> requirements;  // in the order in which they are looked up
  // What locked_memory_needed() returns.
  Result<std::vector<LockedMemoryNeed>> (*locked_memory)(Kernel& kernel, const MemoryToMap& memory,
                                                         std::span<const HostDevice> devices);
  // Opens an empty container on what look_up() found, or on a node of its own if that is empty.
  Result<std::unique_ptr<BackendContainer>> (*open)(Probed probed, Kernel& kernel, const ContainerOptions& options);
};

}  // namespace postern
