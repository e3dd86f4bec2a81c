// SPDX-License-Identifier: Apache-2.0
// Whether a device is bound to a VFIO driver, for the verbs that need it to be.
#pragma once

#include <postern/pci_function.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

// Errors: ENODEV (its driver is named; the remedy binds it, unless that cannot be or would be for nothing: then it says
// what doctor does). `verb` is the operation in it.
[[nodiscard]] Result<void> require_bound(Kernel& kernel, const PciFunction& function, const std::string& verb);

}  // namespace postern::tool
