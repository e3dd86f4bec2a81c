// SPDX-License-Identifier: Apache-2.0
// check_device_responds(): whether a PCI device responds to config reads.
#pragma once

#include <postern/device.hpp>
#include <postern/result.hpp>

namespace postern {

// Errors: EIO (its config space reads as all ones), those of Device::read().
[[nodiscard]] Result<void> check_device_responds(const Device& device);

}  // namespace postern
