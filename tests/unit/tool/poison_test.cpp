// SPDX-License-Identifier: Apache-2.0
// Poison and digests, by which DMA is checked.
#include "proofs/poison.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "proofs/sha256.hpp"

namespace postern::tool {
namespace poison_test {

constexpr std::size_t block = 512;

TEST(Poison, IsFoundWhereNothingWasWritten) {
  const Poison poison(8 * block);
  std::vector<std::byte> buffer(8 * block);
  poison.fill(buffer);
  EXPECT_EQ(poison.first_left(buffer, block), 0U);
}

TEST(Poison, IsFoundInTheOneBlockThatWasNotWritten) {
  const Poison poison(8 * block);
  std::vector<std::byte> buffer(8 * block);
  poison.fill(buffer);
  std::fill(buffer.begin(), buffer.begin() + 5 * block, std::byte{0});
  std::fill(buffer.begin() + 6 * block, buffer.end(), std::byte{0});
  EXPECT_EQ(poison.first_left(buffer, block), 5 * block);
}

TEST(Poison, IsFoundInABlockThatWasWrittenInPart) {
  const Poison poison(2 * block);
  std::vector<std::byte> buffer(2 * block);
  poison.fill(buffer);
  std::fill(buffer.begin(), buffer.begin() + 2 * block - 8, std::byte{0});
  EXPECT_EQ(poison.first_left(buffer, block), block);
}

TEST(Poison, IsGoneWhereAllWasWritten) {
  const Poison poison(2 * block);
  std::vector<std::byte> buffer(2 * block);
  poison.fill(buffer);
  std::fill(buffer.begin(), buffer.end(), std::byte{0});
  EXPECT_EQ(poison.first_left(buffer, block), std::nullopt);
}

TEST(Poison, DiffersFromOneRunToTheNext) {
  std::vector<std::byte> first(block);
  std::vector<std::byte> second(block);
  Poison(block).fill(first);
  Poison(block).fill(second);
  EXPECT_NE(first, second);
}

TEST(Pattern, IsTheSameForTheSameSeedAndRepeatsNowhere) {
  EXPECT_EQ(pattern_of(block, 1), pattern_of(block, 1));
  EXPECT_NE(pattern_of(block, 1), pattern_of(block, 2));
  const auto pattern = pattern_of(2 * block, 1);
  EXPECT_FALSE(std::equal(pattern.begin(), pattern.begin() + block, pattern.begin() + block));
}

TEST(Sha256, IsThatOfFips180) {
  const std::string text = "abc";
  Sha256 digest;
  digest.add(std::as_bytes(std::span(text).first(1)));
  digest.add(std::as_bytes(std::span(text).subspan(1)));
  EXPECT_EQ(digest.finish(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace poison_test
}  // namespace postern::tool
