// SPDX-License-Identifier: Apache-2.0
// NvmeDisk: the content of the simulated controller's namespace.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>

namespace postern::sim {

// Uses memory only for blocks that were written. Block numbers are below blocks().
class NvmeDisk {
 public:
  static constexpr std::size_t block_size = 512;
  using Block = std::array<std::byte, block_size>;

  NvmeDisk(std::uint64_t bytes, std::string_view serial);

  [[nodiscard]] std::uint64_t blocks() const noexcept { return blocks_; }
  void read(std::uint64_t block, std::span<std::byte, block_size> bytes) const;
  void write(std::uint64_t block, std::span<const std::byte, block_size> bytes);

 private:
  std::uint64_t blocks_;
  std::uint64_t seed_;
  std::unordered_map<std::uint64_t, Block> written_;
};

}  // namespace postern::sim
