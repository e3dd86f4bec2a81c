// SPDX-License-Identifier: Apache-2.0
// Poison: random words that fill buffers before a device writes to them, to detect DMA that never arrived.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace postern::tool {

// New random words in each run: the chance that a device sends one of them is one in 2^64.
class Poison {
 public:
  explicit Poison(std::size_t longest);

  // At most as long as the constructor's length.
  void fill(std::span<std::byte> bytes) const;

  // Returns the offset of the first unit of `unit` bytes that was not written completely: its first or last word is
  // still poison. Nothing if all were written. `unit` and the length are multiples of 8.
  [[nodiscard]] std::optional<std::size_t> first_left(std::span<const std::byte> bytes, std::size_t unit) const;

  // Whether none of it was written.
  [[nodiscard]] bool is_untouched(std::span<const std::byte> bytes) const;

 private:
  std::vector<std::byte> pattern_;
};

// Returns bytes that depend on their position, for patterns that are written and read back.
[[nodiscard]] std::vector<std::byte> pattern_of(std::size_t length, std::uint64_t seed);

}  // namespace postern::tool
