// SPDX-License-Identifier: Apache-2.0
// How a transcript writes numbers, results and addresses: in words that are the same on every host.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <span>
#include <string>

namespace postern::transcript {

// "0", "3", or the name of an errno.
[[nodiscard]] std::string outcome(std::intptr_t result);
// "ok" or the name of an errno, for what gives an fd or an address.
[[nodiscard]] std::string opened(std::intptr_t result);
// "mem+0x2000", or the number where it is not in this program's memory.
[[nodiscard]] std::string address(std::uint64_t value);
[[nodiscard]] std::string hex(std::uint64_t value);
// A word that is the same for the same bytes, and how many bits are set.
[[nodiscard]] std::string digest(std::span<const std::byte> bytes);

}  // namespace postern::transcript
