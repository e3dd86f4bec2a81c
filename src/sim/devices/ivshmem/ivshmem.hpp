// SPDX-License-Identifier: Apache-2.0
// Ivshmem: QEMU's ivshmem-plain, a device whose BAR 2 is memory.
#pragma once

#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// BAR 0 has registers, which do nothing in the plain variant: they keep what is written. BAR 2 has 1 MiB of memory, of
// which the device owns only the view: it keeps its contents when the device is opened, reset and closed.
[[nodiscard]] std::unique_ptr<Hardware> make_ivshmem();

}  // namespace postern::sim
