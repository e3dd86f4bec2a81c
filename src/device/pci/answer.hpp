// SPDX-License-Identifier: Apache-2.0
// Whether a PCI device answers.
#pragma once

#include <postern/device.hpp>
#include <postern/result.hpp>

namespace postern {

// Errors: EIO (its config space reads as all ones), those of Device::read().
[[nodiscard]] Result<void> require_answer_of(const Device& device);

}  // namespace postern
