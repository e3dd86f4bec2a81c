// SPDX-License-Identifier: Apache-2.0
// Queries a device's regions and interrupts.
#pragma once

#include <postern/region.hpp>
#include <postern/result.hpp>

#include "device/device_io.hpp"

namespace postern {

// A region or interrupt that the device does not have is returned with length or count 0.
[[nodiscard]] Result<Region> read_region(DeviceIo& io, std::uint32_t index);
[[nodiscard]] Result<Interrupt> read_interrupt(DeviceIo& io, std::uint32_t index);

}  // namespace postern
