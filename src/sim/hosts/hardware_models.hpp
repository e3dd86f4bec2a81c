// SPDX-License-Identifier: Apache-2.0
// make_hardware(): creates the hardware of each model of functions.
#pragma once

#include <memory>
#include <postern-sim/host.hpp>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

[[nodiscard]] std::unique_ptr<Hardware> make_hardware(const HostFunction& described, Platform platform);

}  // namespace postern::sim
