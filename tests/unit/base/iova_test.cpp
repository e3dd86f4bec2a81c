// SPDX-License-Identifier: Apache-2.0
// Clips ranges to the address bits of a device.
#include <postern/iova.hpp>

#include <gtest/gtest.h>

#include <array>

namespace postern {
namespace iova_test {

constexpr std::uint64_t last_of_all = ~std::uint64_t{0};
constexpr std::array<IovaRange, 3> ranges{
    {{{0}, {0xfedf'ffff}}, {{0xfef0'0000}, {(std::uint64_t{1} << 48) - 1}}, {{last_of_all - 0xfff}, {last_of_all}}}};

TEST(ClipToAddressBits, LeavesWhatLiesBelowThem) {
  EXPECT_EQ(clip_to_address_bits(ranges, 28), (std::vector<IovaRange>{{{0}, {0x0fff'ffff}}}));
  EXPECT_EQ(clip_to_address_bits(ranges, 32),
            (std::vector<IovaRange>{{{0}, {0xfedf'ffff}}, {{0xfef0'0000}, {0xffff'ffff}}}));
  EXPECT_EQ(clip_to_address_bits(ranges, 48), (std::vector<IovaRange>{ranges[0], ranges[1]}));
  EXPECT_EQ(clip_to_address_bits(ranges, 63), (std::vector<IovaRange>{ranges[0], ranges[1]}));
}

TEST(ClipToAddressBits, LeavesAllToSixtyFourAndMore) {
  for (const unsigned bits : {64U, 65U, 128U, ~0U}) {
    EXPECT_EQ(clip_to_address_bits(ranges, bits), std::vector<IovaRange>(ranges.begin(), ranges.end())) << bits;
  }
}

TEST(ClipToAddressBits, LeavesTheFirstAddressToNone) {
  EXPECT_EQ(clip_to_address_bits(ranges, 0), (std::vector<IovaRange>{{{0}, {0}}}));
  EXPECT_EQ(clip_to_address_bits(ranges, 1), (std::vector<IovaRange>{{{0}, {1}}}));
}

TEST(ClipToAddressBits, MayLeaveNothing) {
  EXPECT_TRUE(clip_to_address_bits(std::span(ranges).subspan(1), 31).empty());
  EXPECT_TRUE(clip_to_address_bits({}, 48).empty());
}

TEST(ClipToAddressBits, KeepsARangeThatBeginsAtTheLastAddress) {
  constexpr IovaRange at_the_end{{0xffff}, {0x1'0000}};
  EXPECT_EQ(clip_to_address_bits(std::span(&at_the_end, 1), 16), (std::vector<IovaRange>{{{0xffff}, {0xffff}}}));
}

TEST(Access, IsOneOfThree) {
  for (int number = 0; number < 256; ++number) {
    EXPECT_EQ(is_valid(static_cast<Access>(number)), number >= 1 && number <= 3) << number;
  }
}

}  // namespace iova_test
}  // namespace postern
