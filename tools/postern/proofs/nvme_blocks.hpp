// SPDX-License-Identifier: Apache-2.0
// How many blocks of a namespace one command moves.
#pragma once

#include <algorithm>
#include <cstdint>

namespace postern::tool {

// As many as are not longer than `wanted` bytes, or a single one that is; 0 where `most`, what the controller moves at
// a time, is less than a block.
[[nodiscard]] constexpr std::uint64_t blocks_at_a_time(std::uint32_t block_size, std::uint64_t most,
                                                       std::uint64_t wanted) noexcept {
  return std::min(most, std::max<std::uint64_t>(wanted, block_size)) / block_size;
}

}  // namespace postern::tool
