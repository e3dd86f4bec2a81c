// SPDX-License-Identifier: Apache-2.0
// blocks_at_a_time(): how many blocks one command transfers.
#pragma once

#include <algorithm>
#include <cstdint>

namespace postern::tool {

// Returns the number of whole blocks in `wanted` bytes, but at least 1, limited by `most`, the longest transfer of the
// controller in bytes; 0 if that is less than a block.
[[nodiscard]] constexpr std::uint64_t blocks_at_a_time(std::uint32_t block_size, std::uint64_t most,
                                                       std::uint64_t wanted) noexcept {
  return std::min(most, std::max<std::uint64_t>(wanted, block_size)) / block_size;
}

}  // namespace postern::tool
