// SPDX-License-Identifier: Apache-2.0
// replay(): maps in one container what another one maps, for a device that cannot share the first.
#pragma once

#include <postern/container.hpp>
#include <postern/result.hpp>

#include "iommu/file_memory.hpp"

namespace postern {

// Makes one of several mappings.
[[nodiscard]] Result<void> map_one(Container& container, const Mapping& mapping, ExaminedFiles& files);
// The same, of what another container maps: as a copy, which counts no page again, if both are of one iommufd.
[[nodiscard]] Result<void> map_as_in(Container& from, Container& to, const Mapping& mapping, ExaminedFiles& files);

// Creates DMA windows first, if both have them, at the same addresses. After an error a part is mapped, and the
// container should be closed.
[[nodiscard]] Result<void> replay(Container& from, Container& to);

}  // namespace postern
