// SPDX-License-Identifier: Apache-2.0
// SmallBars: a device all of whose BARs are below a page, as hardware: registers that keep what is written to them.
#pragma once

#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// BAR 0 has 256 bytes of memory in a page that another function's BAR is in too; BAR 1 has 64 I/O ports; BAR 2 has 256
// bytes of memory in a page of its own. A reset clears all of them. It does nothing by itself.
[[nodiscard]] std::unique_ptr<Hardware> make_small_bars();

}  // namespace postern::sim
