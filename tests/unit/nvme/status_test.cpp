// SPDX-License-Identifier: Apache-2.0
// Status fields as text.
#include <gtest/gtest.h>

#include <postern-nvme/controller.hpp>

namespace postern::nvme {
namespace status_test {

TEST(NvmeStatus, KnownCodesAreWordsWithTheCodeBehind) {
  EXPECT_EQ(status_text(0x000), "success (0x000)");
  EXPECT_EQ(status_text(0x080), "LBA out of range (0x080)");
  EXPECT_EQ(status_text(0x004), "data transfer error (0x004)");
  EXPECT_EQ(status_text(0x101), "invalid queue identifier (0x101)");
  EXPECT_EQ(status_text(0x281), "unrecovered read error (0x281)");
}

TEST(NvmeStatus, TheBitsThatSayWhetherToRetryAreNotPartOfTheCode) {
  EXPECT_EQ(status_text(0x4080), "LBA out of range (0x080)");  // do not retry
  EXPECT_EQ(status_text(0x2080), "LBA out of range (0x080)");  // more in the error log
}

TEST(NvmeStatus, OtherCodesAreHex) {
  EXPECT_EQ(status_text(0x07e), "unknown status (0x07e)");
  EXPECT_EQ(status_text(0x5ff), "unknown status (0x5ff)");
  EXPECT_EQ(status_text(0x7c1), "vendor-specific status (0x7c1)");
}

}  // namespace status_test
}  // namespace postern::nvme
