// SPDX-License-Identifier: Apache-2.0
// Edu: QEMU's device for learning (docs/specs/edu.rst), as hardware: a DMA engine with 4 KiB of memory, an inverter, a
// factorial, INTx and MSI.
#pragma once

#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// Written through the device's fd a register answers at once, as QEMU's does; through a mapping soon, since the device
// has to look. What it does not see in a mapping: a write of what stands there already, and all but the last of several
// writes to one register in quick succession.
[[nodiscard]] std::unique_ptr<Hardware> make_edu();
// The same with what migration wants: an id of its own, a driver of its own, and a reset.
[[nodiscard]] std::unique_ptr<Hardware> make_migratable_edu();

}  // namespace postern::sim
