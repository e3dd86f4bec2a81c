// SPDX-License-Identifier: Apache-2.0
// Little-endian numbers, by their bytes in memory.
#include <postern/little_endian.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <type_traits>

namespace postern {
namespace little_endian_test {

static_assert(sizeof(Le16) == 2 && sizeof(Le32) == 4 && sizeof(Le64) == 8 && alignof(Le64) == alignof(std::uint64_t));
static_assert(std::is_trivial_v<Le32> && std::is_standard_layout_v<Le32>);
static_assert(Le32(0x12345678) == 0x12345678U);
static_assert(little_endian(little_endian(std::uint64_t{0x0123456789abcdef})) == 0x0123456789abcdef);
static_assert(little_endian(std::uint8_t{0x5a}) == 0x5a);

template <typename Number>
std::array<unsigned char, sizeof(Number)> bytes_of(const Number& number) {
  std::array<unsigned char, sizeof(Number)> bytes;
  std::memcpy(bytes.data(), &number, bytes.size());
  return bytes;
}

TEST(LittleEndian, HasTheLowestByteFirst) {
  EXPECT_EQ(bytes_of(Le16(0x1122)), (std::array<unsigned char, 2>{0x22, 0x11}));
  EXPECT_EQ(bytes_of(Le32(0x11223344)), (std::array<unsigned char, 4>{0x44, 0x33, 0x22, 0x11}));
  EXPECT_EQ(bytes_of(Le64(0x1122334455667788)),
            (std::array<unsigned char, 8>{0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}));
}

TEST(LittleEndian, IsReadAndWrittenAtOnceInTheSameOrder) {
  Le32 number = 0;
  number.store(0x11223344);
  EXPECT_EQ(bytes_of(number), (std::array<unsigned char, 4>{0x44, 0x33, 0x22, 0x11}));
  EXPECT_EQ(number.load(), 0x11223344U);
  EXPECT_EQ(number, 0x11223344U);
}

}  // namespace little_endian_test
}  // namespace postern
