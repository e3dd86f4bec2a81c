// SPDX-License-Identifier: Apache-2.0
// Registers in memory instead of a mapped BAR: valid offsets, and the effects of accesses.
#include <postern/registers.hpp>

#include <gmock/gmock.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace postern {
namespace registers_test {

using ::testing::HasSubstr;

class Registers : public testing::Test {
 protected:
  [[nodiscard]] std::span<std::byte> all() { return memory_; }
  alignas(8) std::array<std::byte, 64> memory_{};
};

template <typename T>
class RegisterOf : public Registers {};
using Widths = testing::Types<std::uint8_t, std::uint16_t, std::uint32_t, std::uint64_t>;
TYPED_TEST_SUITE(RegisterOf, Widths);

TYPED_TEST(RegisterOf, IsLittleEndianAndTouchesNothingBesideIt) {
  constexpr std::size_t width = sizeof(TypeParam);
  this->memory_.fill(std::byte{0xee});
  auto* const found = registers_at<Register<TypeParam>>(this->all(), width).value();
  found->write(static_cast<TypeParam>(0x8877665544332211));
  for (std::size_t i = 0; i < width; ++i) {
    EXPECT_EQ(std::to_integer<unsigned>(this->memory_[width + i]), 0x11 * (i + 1)) << "byte " << i;
  }
  EXPECT_EQ(this->memory_[width - 1], std::byte{0xee});
  EXPECT_EQ(this->memory_[2 * width], std::byte{0xee});
  EXPECT_EQ(found->read(), static_cast<TypeParam>(0x8877665544332211));
  this->memory_[width] = std::byte{0};
  EXPECT_EQ(found->read() & 0xff, 0U) << "it is read anew";
}

TYPED_TEST(RegisterOf, LiesWithinTheMappingToTheLastByte) {
  constexpr std::size_t width = sizeof(TypeParam);
  EXPECT_TRUE(registers_at<Register<TypeParam>>(this->all(), 0));
  EXPECT_TRUE(registers_at<Register<TypeParam>>(this->all(), 64 - width));
  for (const std::uint64_t beyond : {std::uint64_t{64}, std::uint64_t{1} << 63, ~std::uint64_t{0} - (width - 1)}) {
    const auto found = registers_at<Register<TypeParam>>(this->all(), beyond);
    ASSERT_FALSE(found) << beyond;
    EXPECT_EQ(found.error().code(), ERANGE);
    EXPECT_THAT(found.error().message(), HasSubstr("the mapping has 0x40 bytes"));
  }
  EXPECT_EQ(registers_at<Register<TypeParam>>(this->all().first(width - 1)).error().code(), ERANGE);
  EXPECT_EQ(registers_at<Register<TypeParam>>({}).error().code(), ERANGE);
}

TYPED_TEST(RegisterOf, IsNaturallyAligned) {
  constexpr std::size_t width = sizeof(TypeParam);
  for (std::size_t offset = 1; offset < width; ++offset) {
    EXPECT_EQ(registers_at<Register<TypeParam>>(this->all(), offset).error().code(), EINVAL) << offset;
    EXPECT_EQ(registers_at<Register<TypeParam>>(this->all().subspan(offset)).error().code(), EINVAL) << offset;
  }
  EXPECT_TRUE(registers_at<Register<TypeParam>>(this->all().subspan(1), width - 1)) << "the address counts";
}

struct Layout {
  Register<std::uint32_t> version;
  std::uint32_t gap;
  Register<std::uint64_t> address;
  Register<std::uint8_t> command;
};

TEST_F(Registers, OfALayoutAreCheckedTogether) {
  auto* const found = registers_at<Layout>(all(), 8).value();
  found->address.write(0x0123456789abcdef);
  found->command.write(0x5a);
  EXPECT_EQ(memory_[16], std::byte{0xef});
  EXPECT_EQ(memory_[24], std::byte{0x5a});
  EXPECT_EQ(found->version.read(), 0U);
  EXPECT_EQ(registers_at<Layout>(all(), 64 - sizeof(Layout) + 8).error().code(), ERANGE);
  EXPECT_EQ(registers_at<Layout>(all(), 4).error().code(), EINVAL) << "one of them has 64 bits";
}

TEST_F(Registers, ThatDoNotFitAreNamed) {
  EXPECT_EQ(registers_at<Register<std::uint32_t>>(all(), 0x101).error().message(),
            "registers at 0x101, 4 bytes: refused: ERANGE: the mapping has 0x40 bytes");
  EXPECT_EQ(registers_at<Register<std::uint32_t>>(all(), 2).error().message(),
            "registers at 0x2, 4 bytes: refused: EINVAL: their address is not a multiple of 4");
}

}  // namespace registers_test
}  // namespace postern
