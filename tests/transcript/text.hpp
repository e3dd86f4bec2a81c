// SPDX-License-Identifier: Apache-2.0
// Formats numbers, results and addresses for a transcript, independently of the host.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <string>

namespace postern::transcript {

// "0", "3", or the name of an errno.
[[nodiscard]] std::string outcome(std::intptr_t result);
// "ok" or the name of an errno, for calls that return an fd or an address.
[[nodiscard]] std::string opened(std::intptr_t result);
// "mem+0x2000", or the number if it is not within Memory.
[[nodiscard]] std::string address(std::uint64_t value);
[[nodiscard]] std::string hex(std::uint64_t value);
// A hash of the bytes, and the number of bits set.
[[nodiscard]] std::string digest(std::span<const std::byte> bytes);

}  // namespace postern::transcript
