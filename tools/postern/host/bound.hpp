// SPDX-License-Identifier: Apache-2.0
// Whether a device is bound to a VFIO driver, for the verbs that need it to be.
#pragma once

#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

// Errors: ENODEV (its driver is named; the remedy binds it). `verb` is the operation in it.
[[nodiscard]] Result<void> require_bound(const HostDevice& device, const std::string& verb);

}  // namespace postern::tool
