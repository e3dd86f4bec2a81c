// SPDX-License-Identifier: Apache-2.0
// Parses Identify data of controllers and namespaces (NVM Express 1.4, section 5.15), without trusting it.
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
  std::uint8_t max_transfer_shift = 0;  // MDTS: a power of two of the smallest page; 0: no limit
  std::uint32_t max_namespace = 0;      // NN: no namespace has a higher id
};

// Replaces characters that are not printable ASCII by '?', so that a device cannot send control codes to a terminal.
// Errors: EIO (it requires queue entries of other sizes than 64 and 16 bytes).
[[nodiscard]] Result<ControllerData> parse_controller(std::string_view device, const IdentifyData& data);

// Returns the longest transfer of one command in bytes, limited by MDTS and by one page of PRP list.
[[nodiscard]] std::uint64_t max_transfer(std::uint8_t max_transfer_shift, std::uint64_t smallest_page) noexcept;

// The ids of the active namespaces, 1024 at most. Errors: EIO (out of order, or beyond `max_namespace`).
[[nodiscard]] Result<std::vector<std::uint32_t>> parse_active_namespaces(std::string_view device,
                                                                         std::uint32_t max_namespace,
                                                                         const IdentifyData& data);

// Errors: EIO (a block size below 512 bytes or above 1 GiB, or a size beyond 2^64 bytes), EOPNOTSUPP (its blocks carry
// metadata, which this driver does not support).
[[nodiscard]] Result<Namespace> parse_namespace(std::string_view device, std::uint32_t id, const IdentifyData& data);

}  // namespace postern::nvme
