// SPDX-License-Identifier: Apache-2.0
// Parsing valid and invalid Identify data.
#include "nvme/identify.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <postern/little_endian.hpp>

#include "nvme/prp.hpp"

namespace postern::nvme {
namespace identify_test {

constexpr std::string_view device = "0000:00:01.0";

template <typename T>
void put(IdentifyData& data, std::size_t offset, T value) {
  value = little_endian(value);
  std::memcpy(data.data() + offset, &value, sizeof value);
}

void put_text(IdentifyData& data, std::size_t offset, std::string_view text) {
  std::memcpy(data.data() + offset, text.data(), text.size());
}

IdentifyData good_controller() {
  IdentifyData data{};
  put_text(data, 4, "SERIAL-1            ");
  put_text(data, 24, "A model of some words                   ");
  put_text(data, 64, "1.0     ");
  put<std::uint8_t>(data, 77, 7);
  put<std::uint8_t>(data, 512, 0x66);
  put<std::uint8_t>(data, 513, 0x44);
  put<std::uint32_t>(data, 516, 256);
  return data;
}

IdentifyData good_namespace() {
  IdentifyData data{};
  put<std::uint64_t>(data, 0, 0x8000);
  put<std::uint32_t>(data, 128, 9U << 16);
  return data;
}

TEST(IdentifyController, TextIsTrimmedAndNumbersAreRead) {
  const auto parsed = parse_controller(device, good_controller());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->serial, "SERIAL-1");
  EXPECT_EQ(parsed->model, "A model of some words");
  EXPECT_EQ(parsed->firmware, "1.0");
  EXPECT_EQ(parsed->max_transfer_shift, 7);
  EXPECT_EQ(parsed->max_namespace, 256U);
}

TEST(IdentifyController, TextThatFillsItsFieldIsNotRunBeyond) {
  IdentifyData data = good_controller();
  put_text(data, 4, "12345678901234567890");
  put_text(data, 24, "1234567890123456789012345678901234567890");
  const auto parsed = parse_controller(device, data);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->serial, "12345678901234567890");
  EXPECT_EQ(parsed->model, "1234567890123456789012345678901234567890");
}

TEST(IdentifyController, PaddingByNulsAndTextOfNothingGoToo) {
  IdentifyData data = good_controller();
  std::memset(data.data() + 4, 0, 20);
  put_text(data, 4, "  S1");
  std::memset(data.data() + 24, ' ', 40);
  const auto parsed = parse_controller(device, data);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->serial, "S1");
  EXPECT_EQ(parsed->model, "");
}

TEST(IdentifyController, BytesThatATerminalWouldObeyBecomeQuestionMarks) {
  IdentifyData data = good_controller();
  put_text(data, 4, std::string_view("a\x1b[2J\0\x7f\xffz", 9));
  const auto parsed = parse_controller(device, data);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->serial, "a?[2J???z");
}

TEST(IdentifyController, OtherEntrySizesAreRefused) {
  for (const int sizes : {0x00, 0x77, 0x55, 0x67, 0xff}) {
    IdentifyData data = good_controller();
    put(data, 512, static_cast<std::uint8_t>(sizes));
    const auto parsed = parse_controller(device, data);
    ASSERT_FALSE(parsed) << sizes;
    EXPECT_EQ(parsed.error().code(), EIO);
    EXPECT_EQ(parsed.error().object(), device);
  }
  IdentifyData larger_too = good_controller();
  put<std::uint8_t>(larger_too, 512, 0x86);
  EXPECT_TRUE(parse_controller(device, larger_too));
}

TEST(MaxTransfer, IsWhatMdtsAndOneListPageAllow) {
  EXPECT_EQ(max_transfer(1, 4096), 8192U);
  EXPECT_EQ(max_transfer(7, 4096), 512U * 1024);
  EXPECT_EQ(max_transfer(9, 4096), prp_max_bytes);
  EXPECT_EQ(max_transfer(10, 4096), prp_max_bytes);
  EXPECT_EQ(max_transfer(0, 4096), prp_max_bytes) << "0 stands for no limit";
}

TEST(MaxTransfer, AShiftOutOfAllBoundsDoesNotOverflow) {
  for (const int shift : {52, 63, 64, 128, 255}) {
    EXPECT_EQ(max_transfer(static_cast<std::uint8_t>(shift), 4096), prp_max_bytes) << shift;
  }
}

TEST(ActiveNamespaces, TheListEndsWithAZero) {
  IdentifyData data{};
  put<std::uint32_t>(data, 0, 1);
  put<std::uint32_t>(data, 4, 5);
  put<std::uint32_t>(data, 12, 9);
  const auto ids = parse_active_namespaces(device, 16, data);
  ASSERT_TRUE(ids);
  EXPECT_EQ(*ids, (std::vector<std::uint32_t>{1, 5}));
}

TEST(ActiveNamespaces, AFullListEndsWithItsPage) {
  IdentifyData data{};
  for (std::uint32_t i = 0; i < 1024; ++i) put<std::uint32_t>(data, 4 * std::size_t{i}, i + 1);
  const auto ids = parse_active_namespaces(device, 1024, data);
  ASSERT_TRUE(ids);
  EXPECT_EQ(ids->size(), 1024U);
}

TEST(ActiveNamespaces, IdsOutOfOrderOrBeyondTheLastAreRefused) {
  const auto list = [](std::uint32_t first, std::uint32_t second) {
    IdentifyData data{};
    put(data, 0, first);
    put(data, 4, second);
    return parse_active_namespaces(device, 16, data);
  };
  EXPECT_TRUE(list(15, 16));
  for (const auto& [first, second] : {std::pair{2U, 1U}, std::pair{3U, 3U}, std::pair{1U, 17U}, std::pair{~0U, 1U}}) {
    const auto ids = list(first, second);
    ASSERT_FALSE(ids) << first << ", " << second;
    EXPECT_EQ(ids.error().code(), EIO);
  }
}

TEST(IdentifyNamespace, SizeAndBlockSizeComeFromTheFormatInUse) {
  IdentifyData data = good_namespace();
  put<std::uint8_t>(data, 26, 0x03);
  put<std::uint32_t>(data, 128 + 4 * 3, 12U << 16);
  const auto ns = parse_namespace(device, 7, data);
  ASSERT_TRUE(ns);
  EXPECT_EQ(ns->id, 7U);
  EXPECT_EQ(ns->blocks, 0x8000U);
  EXPECT_EQ(ns->block_size, 4096U);
}

TEST(IdentifyNamespace, TheLastFormatOfTheTableLiesWithinTheData) {
  IdentifyData data = good_namespace();
  put<std::uint8_t>(data, 26, 0xff);
  put<std::uint32_t>(data, 128 + 4 * 15, 9U << 16);
  EXPECT_TRUE(parse_namespace(device, 1, data));
}

TEST(IdentifyNamespace, BlockSizesThatCannotBeAreRefused) {
  for (const std::uint32_t shift : {0U, 1U, 8U, 31U, 32U, 64U, 255U}) {
    IdentifyData data = good_namespace();
    put<std::uint32_t>(data, 128, shift << 16);
    const auto ns = parse_namespace(device, 1, data);
    ASSERT_FALSE(ns) << shift;
    EXPECT_EQ(ns.error().code(), EIO);
    EXPECT_EQ(ns.error().object(), "0000:00:01.0 namespace 1");
  }
}

TEST(IdentifyNamespace, MoreBytesThanSixtyFourBitsCountAreRefused) {
  IdentifyData data = good_namespace();
  put<std::uint64_t>(data, 0, std::uint64_t{1} << 55);
  EXPECT_FALSE(parse_namespace(device, 1, data));
  put<std::uint64_t>(data, 0, (std::uint64_t{1} << 55) - 1);
  EXPECT_TRUE(parse_namespace(device, 1, data));
}

TEST(IdentifyNamespace, MetadataIsRefusedSinceItHasNoBuffer) {
  IdentifyData data = good_namespace();
  put<std::uint32_t>(data, 128, 9U << 16 | 8);
  const auto ns = parse_namespace(device, 1, data);
  ASSERT_FALSE(ns);
  EXPECT_EQ(ns.error().code(), EOPNOTSUPP);
}

}  // namespace identify_test
}  // namespace postern::nvme
