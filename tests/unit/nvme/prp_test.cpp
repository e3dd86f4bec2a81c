// SPDX-License-Identifier: Apache-2.0
// PRP1, PRP2 and the PRP list for data, with all edge cases.
#include "nvme/prp.hpp"

#include <gtest/gtest.h>

#include <array>

namespace postern::nvme {
namespace prp_test {

constexpr Iova data{0x10'0000};
constexpr Iova list_iova{0xabc000};
constexpr std::uint64_t untouched = 0x5555'5555'5555'5555;

class Prp : public ::testing::Test {
 protected:
  Prp() { entries_.fill(untouched); }

  Prps build(Iova iova, std::uint64_t bytes) {
    // Guard entries around the page detect writes outside of it.
    const std::span<Le64, prp_list_entries> page(entries_.data() + 1, prp_list_entries);
    return build_prps(iova, bytes, {.entries = page, .iova = list_iova});
  }
  [[nodiscard]] std::uint64_t entry(std::size_t index) const { return entries_[index + 1]; }
  [[nodiscard]] std::size_t entries_used() const {
    std::size_t used = 0;
    while (used < prp_list_entries && entry(used) != untouched) ++used;
    return used;
  }
  [[nodiscard]] bool guards_are_whole() const { return entries_.front() == untouched && entries_.back() == untouched; }

 private:
  std::array<Le64, prp_list_entries + 2> entries_;
};

TEST_F(Prp, OnePageNeedsNoSecondPrp) {
  const Prps prps = build(data, page_size);
  EXPECT_EQ(prps.prp1, data.value);
  EXPECT_EQ(prps.prp2, 0U);
  EXPECT_EQ(entries_used(), 0U);
}

TEST_F(Prp, DataThatEndsWithItsPageNeedsNoSecondPrp) {
  const Prps prps = build(data + 0xe00, 0x200);
  EXPECT_EQ(prps.prp1, data.value + 0xe00);
  EXPECT_EQ(prps.prp2, 0U);
}

TEST_F(Prp, OneByteIntoTheNextPageNamesThatPage) {
  const Prps prps = build(data + 0xe00, 0x201);
  EXPECT_EQ(prps.prp1, data.value + 0xe00);
  EXPECT_EQ(prps.prp2, data.value + 0x1000);
  EXPECT_EQ(entries_used(), 0U);
}

TEST_F(Prp, TwoWholePagesNeedNoList) {
  const Prps prps = build(data, 2 * page_size);
  EXPECT_EQ(prps.prp2, data.value + 0x1000);
  EXPECT_EQ(entries_used(), 0U);
}

TEST_F(Prp, TwoPagesOfDataWithinThreePagesNeedAList) {
  const Prps prps = build(data + 4, 2 * page_size);
  EXPECT_EQ(prps.prp1, data.value + 4);
  EXPECT_EQ(prps.prp2, list_iova.value);
  ASSERT_EQ(entries_used(), 2U);
  EXPECT_EQ(entry(0), data.value + 0x1000);
  EXPECT_EQ(entry(1), data.value + 0x2000);
}

TEST_F(Prp, ThreePagesPutTheSecondAndThirdIntoTheList) {
  const Prps prps = build(data, 3 * page_size);
  EXPECT_EQ(prps.prp1, data.value);
  EXPECT_EQ(prps.prp2, list_iova.value);
  ASSERT_EQ(entries_used(), 2U);
  EXPECT_EQ(entry(0), data.value + 0x1000);
  EXPECT_EQ(entry(1), data.value + 0x2000);
}

TEST_F(Prp, TheMostBytesFromTheStartOfAPageLeaveOneEntryOfTheListFree) {
  const Prps prps = build(data, prp_max_bytes);
  EXPECT_EQ(prps.prp2, list_iova.value);
  EXPECT_EQ(entries_used(), prp_list_entries - 1);
  EXPECT_EQ(entry(prp_list_entries - 2), data.value + prp_max_bytes - page_size);
  EXPECT_TRUE(guards_are_whole());
}

TEST_F(Prp, TheMostBytesFromWithinAPageFillTheListAndNoMore) {
  const Prps prps = build(data + 4, prp_max_bytes);
  EXPECT_EQ(prps.prp2, list_iova.value);
  EXPECT_EQ(entries_used(), prp_list_entries);
  EXPECT_EQ(entry(prp_list_entries - 1), data.value + prp_max_bytes);
  EXPECT_TRUE(guards_are_whole());
}

TEST_F(Prp, DataAtTheVeryEndOfTheIovasIsNamedWithoutWrapping) {
  const Prps prps = build({0xffff'ffff'ffff'e000}, 2 * page_size);
  EXPECT_EQ(prps.prp1, 0xffff'ffff'ffff'e000);
  EXPECT_EQ(prps.prp2, 0xffff'ffff'ffff'f000);
}

}  // namespace prp_test
}  // namespace postern::nvme
