// SPDX-License-Identifier: Apache-2.0
// Poison: what buffers are filled with before a device writes to them, so that a DMA that never came cannot be taken
// for one that did.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace postern::tool {

// Random words, drawn anew in each run: that a device sends one of them by chance is one in 2^64.
class Poison {
 public:
  explicit Poison(std::size_t longest);

  // At most as long as it was made for.
  void fill(std::span<std::byte> bytes) const;

  // Where the first unit of `unit` bytes stands that was not written whole: its first or its last word still is poison.
  // Nothing where all were written. `unit` and the length are multiples of 8.
  [[nodiscard]] std::optional<std::size_t> first_left(std::span<const std::byte> bytes, std::size_t unit) const;

  // Whether none of it was written.
  [[nodiscard]] bool is_untouched(std::span<const std::byte> bytes) const;

 private:
  std::vector<std::byte> pattern_;
};

// Bytes that are told apart by where they stand, for patterns that are written and read back.
[[nodiscard]] std::vector<std::byte> pattern_of(std::size_t length, std::uint64_t seed);

}  // namespace postern::tool
