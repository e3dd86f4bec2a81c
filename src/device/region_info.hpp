// SPDX-License-Identifier: Apache-2.0
// Asking a device for its regions and interrupts, and reading the answers.
#pragma once

#include <postern/region.hpp>
#include <postern/result.hpp>

#include "device/device_io.hpp"

namespace postern {

// A region or interrupt that the device does not have comes back with length or count 0.
[[nodiscard]] Result<Region> read_region(DeviceIo& io, std::uint32_t index);
[[nodiscard]] Result<Interrupt> read_interrupt(DeviceIo& io, std::uint32_t index);

}  // namespace postern
