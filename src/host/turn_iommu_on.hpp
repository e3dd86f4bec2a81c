// SPDX-License-Identifier: Apache-2.0
// turn_iommu_on(): the remedy for a host whose kernel uses no IOMMU.
#pragma once

#include <postern/kernel.hpp>
#include <postern/remedy.hpp>
#include <postern/result.hpp>

namespace postern {

// Considers the host's processor, firmware tables, kernel parameters and hypervisor. Errors: those of reading them.
[[nodiscard]] Result<Remedies> turn_iommu_on(Kernel& kernel);

}  // namespace postern
