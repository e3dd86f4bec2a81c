// SPDX-License-Identifier: Apache-2.0
// require_bound(): checks that a device is bound to a VFIO driver, for the commands that need that.
#pragma once

#include <postern/pci_function.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

// Errors: ENODEV (its driver is named; the remedy is to bind it, unless that is impossible or useless: then it is that
// of doctor). `command` is the error's operation.
[[nodiscard]] Result<void> require_bound(Kernel& kernel, const PciFunction& function, const std::string& command);

}  // namespace postern::tool
