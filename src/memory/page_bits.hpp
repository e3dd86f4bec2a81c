// SPDX-License-Identifier: Apache-2.0
// Bits for pages in 64-bit words, lowest first: sets and finds them, and merges one bitmap into another.
#pragma once

#include <cstdint>

namespace postern::memory {

inline constexpr std::uint64_t word_bits = 64;
[[nodiscard]] constexpr std::uint64_t words_for(std::uint64_t bits) { return (bits + word_bits - 1) / word_bits; }

void set_bits(std::uint64_t* words, std::uint64_t first, std::uint64_t count);
void clear_bits(std::uint64_t* words, std::uint64_t first, std::uint64_t count);

// Returns the first set bit of [first, end); `end` if there is none.
[[nodiscard]] std::uint64_t find_bit(const std::uint64_t* words, std::uint64_t first, std::uint64_t end);

// A bit of a bitmap.
template <typename Word>
struct BitPlace {
  Word* words;
  std::uint64_t bit;
};

// Sets in `to` the bits that are set in the `count` bits from `from` on.
void merge_bits(BitPlace<std::uint64_t> to, BitPlace<const std::uint64_t> from, std::uint64_t count);

// The same, but one bit of `to` represents 2^shift bits of `from`: it is set if any of them is. `to.bit` counts in the
// smaller pages.
void fold_bits(BitPlace<std::uint64_t> to, BitPlace<const std::uint64_t> from, std::uint64_t count, unsigned shift);

}  // namespace postern::memory
