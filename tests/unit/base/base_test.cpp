// SPDX-License-Identifier: Apache-2.0
// Errors, iovas and sizes in words.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <postern/iova.hpp>
#include <postern/log.hpp>
#include <postern/result.hpp>

#include "base/log.hpp"
#include "base/words.hpp"

namespace postern {
namespace base_test {

TEST(Error, NamesObjectOperationErrnoReasonAndRemedyInThatOrder) {
  const Error error({.code = ENOMEM,
                     .operation = "VFIO_IOMMU_MAP_DMA",
                     .object = "map 0x1000+4 KiB into container type1",
                     .reason = "locked memory is limited to 8 MiB",
                     .remedy = "raise RLIMIT_MEMLOCK"});
  EXPECT_EQ(
      error.message(),
      "map 0x1000+4 KiB into container type1: VFIO_IOMMU_MAP_DMA: ENOMEM: locked memory is limited to 8 MiB; raise "
      "RLIMIT_MEMLOCK");
}

TEST(Error, SaysWhatTheErrnoMeansWhenNothingMoreIsKnown) {
  EXPECT_EQ(Error({.code = ENOENT, .operation = "open", .object = "/dev/vfio/9"}).message(),
            "/dev/vfio/9: open: ENOENT: No such file or directory");
}

TEST(Error, WithoutACallIsARefusalAndSaysSo) {
  const Error refused({.code = EINVAL, .object = "map 0x123+4 KiB", .reason = "unaligned"});
  EXPECT_TRUE(refused.refused());
  EXPECT_EQ(refused.message(), "map 0x123+4 KiB: refused: EINVAL: unaligned");
  EXPECT_FALSE(Error({.code = ENOENT, .operation = "open", .object = "/dev/vfio/9"}).refused());
}

TEST(Error, ListsTheRefusalsBehindIt) {
  Error::Details details{.code = ENODEV, .operation = {}, .object = "x", .reason = "none"};
  details.causes.emplace_back(Error::Details{.code = ENOENT, .operation = "open", .object = "a", .reason = "gone"});
  details.causes.emplace_back(Error::Details{.code = EACCES, .operation = "open", .object = "b", .reason = "shut"});
  EXPECT_EQ(Error(std::move(details)).message(),
            "x: refused: ENODEV: none [a: open: ENOENT: gone] [b: open: EACCES: shut]");
}

TEST(Error, AnErrnoWithoutANameIsANumber) { EXPECT_EQ(errno_name(4000), "4000"); }

TEST(Error, AResultOfNothingIsNoLargerThanTwoPointers) { EXPECT_LE(sizeof(Result<void>), 2 * sizeof(void*)); }

TEST(Log, ReceivesWhatADestructorCannotReturnAndIsSilentWhenOff) {
  static int seen = 0;
  seen = 0;
  static LogKind kind = LogKind::remark;
  set_log_handler([](LogKind of, const Error& error) noexcept {
    seen = error.code();
    kind = of;
  });
  log_failure(Result<void>(failure({.code = EBUSY, .operation = "close", .object = "x"})));
  EXPECT_EQ(seen, EBUSY);
  EXPECT_EQ(kind, LogKind::tear_down);
  log_failure(Result<void>(failure({.code = ETIMEDOUT, .operation = "stop", .object = "x"})), LogKind::device);
  EXPECT_EQ(kind, LogKind::device);
  log_failure(Result<void>(failure({.code = EBUSY, .operation = "close", .object = "x"})));
  set_log_handler(nullptr);
  log_failure(Result<void>(failure({.code = EIO, .operation = "close", .object = "x"})));
  EXPECT_EQ(seen, EBUSY);
}

TEST(IovaRange, OfNoBytesOrPastTheLastAddressDoesNotExist) {
  EXPECT_FALSE(IovaRange::from_length({0x1000}, 0));
  EXPECT_FALSE(IovaRange::from_length({~std::uint64_t{0} - 0xfff}, 0x1001));
  EXPECT_TRUE(IovaRange::from_length({~std::uint64_t{0} - 0xfff}, 0x1000));
}

TEST(IovaRange, ContainsAndOverlapsWithBothEndsInclusive) {
  constexpr IovaRange range{{0x1000}, {0x1fff}};
  EXPECT_TRUE(range.contains(Iova{0x1fff}));
  EXPECT_FALSE(range.contains(Iova{0x2000}));
  EXPECT_TRUE(range.overlaps({{0x1fff}, {0x2fff}}));
  EXPECT_FALSE(range.overlaps({{0x2000}, {0x2fff}}));
  EXPECT_TRUE(range.contains(range));
  EXPECT_FALSE(range.contains(IovaRange{{0x1000}, {0x2000}}));
}

TEST(Words, SizesUseTheLargestUnitThatIsExact) {
  EXPECT_EQ(size_text(0), "0 bytes");
  EXPECT_EQ(size_text(4096), "4 KiB");
  EXPECT_EQ(size_text(4097), "4097 bytes");
  EXPECT_EQ(size_text(std::uint64_t{16} << 30), "16 GiB");
  EXPECT_EQ(size_text(std::uint64_t{1} << 63), "8 EiB");
}

TEST(Words, PageSizesAreNamedOneByOne) {
  EXPECT_EQ(page_sizes_text(0x40201000), "4 KiB, 2 MiB, 1 GiB");
  EXPECT_EQ(page_sizes_text(0), "none");
}

TEST(Words, ModesLookAsInAListing) {
  EXPECT_EQ(mode_text(S_IFCHR | 0600), "crw-------");
  EXPECT_EQ(mode_text(S_IFCHR | 0754), "crwxr-xr--");
}

}  // namespace base_test
}  // namespace postern
