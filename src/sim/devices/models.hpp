// SPDX-License-Identifier: Apache-2.0
// The hardware of each model of functions.
#pragma once

#include <memory>
#include <postern/sim.hpp>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

[[nodiscard]] std::unique_ptr<Hardware> make_hardware(const SimulatedFunction& described, SimulatedPlatform platform);

}  // namespace postern::sim
