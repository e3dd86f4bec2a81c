// SPDX-License-Identifier: Apache-2.0
// Edu: QEMU's educational device (docs/specs/edu.rst): a DMA engine with 4 KiB of memory, an inverter, a factorial,
// INTx and MSI.
#pragma once

#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// A write through the device's fd takes effect at once, as with QEMU; a write through a mapping soon, since the device
// polls. Through a mapping it misses writes of the current value, and all but the last of several quick writes to a
// register.
[[nodiscard]] std::unique_ptr<Hardware> make_edu();
// The same with migration: it has its own id, its own driver, and a reset.
[[nodiscard]] std::unique_ptr<Hardware> make_migratable_edu();

}  // namespace postern::sim
