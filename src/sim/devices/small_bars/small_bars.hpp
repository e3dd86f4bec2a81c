// SPDX-License-Identifier: Apache-2.0
// SmallBars: a device whose BARs are all smaller than a page, and keep what is written to them.
#pragma once

#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// BAR 0 has 256 bytes of memory in a page that it shares with another function's BAR; BAR 1 has 64 I/O ports; BAR 2 has
// 256 bytes of memory in its own page. A reset clears all of them. It has no other function.
[[nodiscard]] std::unique_ptr<Hardware> make_small_bars();

}  // namespace postern::sim
