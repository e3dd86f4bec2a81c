// SPDX-License-Identifier: Apache-2.0
// Formats iovas, and clips ranges to the addresses that a device can reach.
#include <fmt/format.h>

#include <algorithm>
#include <postern/iova.hpp>

namespace postern {

std::vector<IovaRange> clip_to_address_bits(std::span<const IovaRange> ranges, unsigned address_bits) {
  const Iova last{address_bits < 64 ? (std::uint64_t{1} << address_bits) - 1 : ~std::uint64_t{0}};
  std::vector<IovaRange> clipped;
  for (const IovaRange& range : ranges) {
    if (range.first <= last) clipped.push_back({range.first, std::min(range.last, last)});
  }
  return clipped;
}

std::string to_string(Iova iova) { return fmt::format("{:#x}", iova.value); }

std::string to_string(IovaRange range) { return fmt::format("{:#x}-{:#x}", range.first.value, range.last.value); }

std::string_view to_string(Access access) {
  switch (access) {
    case Access::read:
      return "read";
    case Access::write:
      return "write";
    case Access::read_write:
      break;
  }
  return "read and write";
}

}  // namespace postern
