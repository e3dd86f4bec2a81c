// SPDX-License-Identifier: Apache-2.0
// Sizes, rates and durations: parsing and formatting.
#include "text/sizes.hpp"

#include <gtest/gtest.h>

#include <cerrno>

namespace postern::tool {
namespace sizes_test {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t gib = 1024 * mib;

TEST(ParseMemory, TakesWhatAProcessCanHave) {
  EXPECT_EQ(parse_memory("64M").value(), 64 * mib);
  EXPECT_EQ(parse_memory("65536T").value(), std::uint64_t{1} << 56);
  for (const char* text : {"65537T", "9E", "15E", "18446744073709551615"}) {
    const auto parsed = parse_memory(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_EQ(parsed.error().code(), ERANGE);
  }
}

TEST(ParseSize, TakesANumberOfBytes) { EXPECT_EQ(parse_size("4096").value(), 4096U); }

TEST(ParseSize, TakesUnitsOf1024InEverySpelling) {
  EXPECT_EQ(parse_size("64K").value(), 64 * kib);
  EXPECT_EQ(parse_size("64k").value(), 64 * kib);
  EXPECT_EQ(parse_size("64KB").value(), 64 * kib);
  EXPECT_EQ(parse_size("64 KiB").value(), 64 * kib);
  EXPECT_EQ(parse_size("64M").value(), 64 * mib);
  EXPECT_EQ(parse_size("1G").value(), gib);
  EXPECT_EQ(parse_size("2T").value(), 2048 * gib);
  EXPECT_EQ(parse_size("12B").value(), 12U);
}

TEST(ParseSize, TakesWhat64BitsCanCountAndNoMore) {
  EXPECT_EQ(parse_size("18446744073709551615").value(), UINT64_MAX);
  EXPECT_EQ(parse_size("15E").value(), 15 * gib * gib);
  EXPECT_EQ(parse_size("16E").error().code(), ERANGE);
  EXPECT_EQ(parse_size("18446744073709551616").error().code(), ERANGE);
  EXPECT_EQ(parse_size("17179869184G").error().code(), ERANGE);
}

TEST(ParseSize, RefusesWhatIsNoSizeAndSaysWhatItRead) {
  for (const char* text : {"", "M", "-1", "12Q", "1.5G", "64MM", "64 K K", "0x1000", " 64", "all", "64iB"}) {
    const auto size = parse_size(text);
    ASSERT_FALSE(size.has_value()) << text;
    EXPECT_EQ(size.error().code(), EINVAL) << text;
    EXPECT_NE(size.error().object().find("\"" + std::string(text) + "\""), std::string::npos);
    EXPECT_FALSE(size.error().remedy().empty());
  }
}

TEST(ParseSize, RefusesZero) { EXPECT_EQ(parse_size("0M").error().code(), EINVAL); }

TEST(ParseSizeOrAll, GivesNothingForAll) {
  EXPECT_EQ(parse_size_or_all("all").value(), std::nullopt);
  EXPECT_EQ(parse_size_or_all("1M").value(), mib);
  EXPECT_EQ(parse_size_or_all("ALL").error().code(), EINVAL);
}

TEST(SizeText, IsExactWhereTheUnitDividesIt) {
  EXPECT_EQ(size_text(0), "0 bytes");
  EXPECT_EQ(size_text(1), "1 byte");
  EXPECT_EQ(size_text(4 * kib), "4 KiB");
  EXPECT_EQ(size_text(64 * mib), "64 MiB");
  EXPECT_EQ(size_text(16 * gib), "16 GiB");
  EXPECT_EQ(size_text(4097), "4097 bytes");
  EXPECT_EQ(size_text(1536 * mib), "1536 MiB");
}

TEST(SizeText, IsRoundedWhereItMustBe) {
  EXPECT_EQ(size_text(100 * mib + 1), "100.0 MiB");
  EXPECT_EQ(size_text(UINT64_MAX), "16.0 EiB");
}

TEST(RateText, HasNoRateWithoutTime) { EXPECT_EQ(rate_text(mib, 0), "-"); }

TEST(RateText, HasTheUnitThatFits) {
  EXPECT_EQ(rate_text(512 * kib, 1), "512 KiB/s");
  EXPECT_EQ(rate_text(3 * mib, 2), "1.5 MiB/s");
  EXPECT_EQ(rate_text(350 * mib, 1), "350 MiB/s");
  EXPECT_EQ(rate_text(3 * gib, 1), "3.0 GiB/s");
}

TEST(DurationText, HasTheUnitThatFits) {
  EXPECT_EQ(duration_text(0.000042), "42 us");
  EXPECT_EQ(duration_text(0.0032), "3.2 ms");
  EXPECT_EQ(duration_text(0.034), "34 ms");
  EXPECT_EQ(duration_text(1.24), "1.2 s");
  EXPECT_EQ(duration_text(125), "2 min 05 s");
}

TEST(CountText, PutsCommasBetweenThousands) {
  EXPECT_EQ(count_text(7), "7");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(1000), "1,000");
  EXPECT_EQ(count_text(65535), "65,535");
  EXPECT_EQ(count_text(1234567), "1,234,567");
}

TEST(PageSizesText, NamesEach) {
  EXPECT_EQ(page_sizes_text(0x40201000), "4 KiB, 2 MiB, 1 GiB");
  EXPECT_EQ(page_sizes_text(0), "none");
}

TEST(PageSizesText, PutsARunToTheEndShort) {
  EXPECT_EQ(page_sizes_text(0xfffffffffffff000), "every power of two from 4 KiB");
}

}  // namespace sizes_test
}  // namespace postern::tool
