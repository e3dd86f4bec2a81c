// SPDX-License-Identifier: Apache-2.0
// What a controller says of itself and its namespaces (NVM Express 1.4, section 5.15), read with distrust.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <postern-nvme/controller.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern::nvme {

using IdentifyData = std::array<std::byte, 4096>;

struct ControllerData {
  std::string model, serial, firmware;
  std::uint8_t max_transfer_shift = 0;  // MDTS: a power of two of the smallest page; 0 stands for no limit
  std::uint32_t max_namespace = 0;      // NN: no namespace has a higher id
};

// Text that is not printable ASCII is shown as '?', so that a device cannot write to a terminal.
// Errors: EIO (it wants queue entries of other sizes than 64 and 16 bytes).
[[nodiscard]] Result<ControllerData> parse_controller(std::string_view device, const IdentifyData& data);

// Bytes that one command can move: what MDTS allows, and what one PRP list page can name.
[[nodiscard]] std::uint64_t max_transfer(std::uint8_t max_transfer_shift, std::uint64_t smallest_page) noexcept;

// The ids of the active namespaces, 1024 at most. Errors: EIO (out of order, or beyond `max_namespace`).
[[nodiscard]] Result<std::vector<std::uint32_t>> parse_active_namespaces(std::string_view device,
                                                                         std::uint32_t max_namespace,
                                                                         const IdentifyData& data);

// Errors: EIO (a block size below 512 bytes or above 1 GiB, or a size beyond 2^64 bytes), EOPNOTSUPP (its blocks carry
// metadata, which this driver has no memory for).
[[nodiscard]] Result<Namespace> parse_namespace(std::string_view device, std::uint32_t id, const IdentifyData& data);

}  // namespace postern::nvme
