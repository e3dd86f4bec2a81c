// SPDX-License-Identifier: Apache-2.0
// make_nvme(): the hardware of an NVM Express controller with one namespace.
#pragma once

#include <cstdint>
#include <memory>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

// Its disk has `bytes` bytes in blocks of 512. Unwritten blocks have different content for each block and serial
// number, which is never all zeros, and always the same. A reset keeps written data.
[[nodiscard]] std::unique_ptr<Hardware> make_nvme(std::uint64_t bytes, const char* serial);

}  // namespace postern::sim
