// SPDX-License-Identifier: Apache-2.0
// Nvme: an NVM Express controller with one namespace, as hardware.
#pragma once

#include <cstdint>
#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// Its disk has `bytes` bytes in blocks of 512. What nobody has written differs from block to block and from serial to
// serial, is never all zeroes, and is the same each time. A reset keeps what was written.
[[nodiscard]] std::unique_ptr<Hardware> make_nvme(std::uint64_t bytes, const char* serial);

}  // namespace postern::sim
