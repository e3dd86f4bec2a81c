// SPDX-License-Identifier: Apache-2.0
// What to do on a host whose kernel uses no IOMMU.
#pragma once

#include <postern/kernel.hpp>
#include <string>

namespace postern {

// The remedy that fits this machine: its processor, its firmware's tables, its kernel's parameters, and what it runs
// under.
[[nodiscard]] std::string turn_iommu_on(Kernel& kernel);

}  // namespace postern
