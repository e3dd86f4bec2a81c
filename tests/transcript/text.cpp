// SPDX-License-Identifier: Apache-2.0
// Formats numbers, results and addresses for a transcript.
#include "transcript/text.hpp"

#include <bit>
#include <cstring>

#include "transcript/world.hpp"

namespace postern::transcript {

std::string outcome(std::intptr_t result) {
  if (result >= 0) return std::to_string(result);
  const char* const name = ::strerrorname_np(static_cast<int>(-result));
  return name != nullptr ? name : std::to_string(result);
}

std::string opened(std::intptr_t result) { return result >= 0 ? "ok" : outcome(result); }

std::string address(std::uint64_t value) {
  const std::uint64_t offset = value - Memory::start;
  return offset < Memory::end ? fmt::format("mem+{:#x}", offset) : hex(value);
}

std::string hex(std::uint64_t value) { return fmt::format("{:#x}", value); }

std::string digest(std::span<const std::byte> bytes) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  int bits = 0;
  for (const std::byte each : bytes) {
    hash = (hash ^ static_cast<std::uint64_t>(each)) * 0x100000001b3;
    bits += std::popcount(static_cast<std::uint8_t>(each));
  }
  return fmt::format("{:08x}:{}", hash & 0xffffffff, bits);
}

}  // namespace postern::transcript
