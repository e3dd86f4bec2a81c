// SPDX-License-Identifier: Apache-2.0
// Poison: random words that fill buffers before a device writes to them.
#include "proofs/poison.hpp"

#include <algorithm>
#include <cstring>
#include <random>

namespace postern::tool {
namespace {

constexpr std::size_t word = sizeof(std::uint64_t);

bool same_word(std::span<const std::byte> a, std::span<const std::byte> b, std::size_t offset) {
  return std::memcmp(a.data() + offset, b.data() + offset, word) == 0;
}

}  // namespace

Poison::Poison(std::size_t longest) {
  std::random_device random;
  pattern_ = pattern_of(longest, (std::uint64_t{random()} << 32) | random());
}

void Poison::fill(std::span<std::byte> bytes) const {
  std::memcpy(bytes.data(), pattern_.data(), std::min(bytes.size(), pattern_.size()));
}

std::optional<std::size_t> Poison::first_left(std::span<const std::byte> bytes, std::size_t unit) const {
  for (std::size_t at = 0; at + unit <= bytes.size(); at += unit) {
    if (same_word(bytes, pattern_, at) || same_word(bytes, pattern_, at + unit - word)) return at;
  }
  return std::nullopt;
}

bool Poison::is_untouched(std::span<const std::byte> bytes) const {
  return std::memcmp(bytes.data(), pattern_.data(), std::min(bytes.size(), pattern_.size())) == 0;
}

std::vector<std::byte> pattern_of(std::size_t length, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::vector<std::byte> bytes(length);
  for (std::size_t at = 0; at < length; at += word) {
    const std::uint64_t value = generator();
    std::memcpy(bytes.data() + at, &value, std::min(word, length - at));
  }
  return bytes;
}

}  // namespace postern::tool
