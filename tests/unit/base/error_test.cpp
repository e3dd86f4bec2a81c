// SPDX-License-Identifier: Apache-2.0
// Error: its kind, its parts, and its text.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <postern/result.hpp>
#include <set>
#include <string>

namespace postern {
namespace error_test {

Error locked() {
  return Error({.code = ENOMEM,
                .operation = "VFIO_IOMMU_MAP_DMA",
                .object = "map 0x1000+4 KiB",
                .reason = "locked memory is limited to 8 MiB",
                .remedy = RemedyCode::raise_locked_memory_limit});
}
Error refused() { return Error({.code = EINVAL, .object = "map 0x123+4 KiB", .reason = "unaligned"}); }
Error missing() { return Error({.code = ENOENT, .operation = "open", .object = "/dev/vfio/9"}); }

struct Worded {
  Error error;
  std::string explanation;
  std::string summary;
  std::string message;
};

TEST(Error, IsWordedInThreeLengths) {
  const std::string limit = "locked memory is limited to 8 MiB";
  const std::string remedy = "raise RLIMIT_MEMLOCK (\"ulimit -l\") or run with CAP_IPC_LOCK";
  for (const Worded& each : {
           Worded{locked(), limit + " (VFIO_IOMMU_MAP_DMA: ENOMEM)",
                  "map 0x1000+4 KiB: " + limit + " (VFIO_IOMMU_MAP_DMA: ENOMEM)",
                  fmt::format("map 0x1000+4 KiB: VFIO_IOMMU_MAP_DMA: ENOMEM: {}; {}", limit, remedy)},
           Worded{refused(), "unaligned (EINVAL)", "map 0x123+4 KiB: unaligned (EINVAL)",
                  "map 0x123+4 KiB: refused: EINVAL: unaligned"},
           Worded{missing(), "No such file or directory (open: ENOENT)",
                  "/dev/vfio/9: No such file or directory (open: ENOENT)",
                  "/dev/vfio/9: open: ENOENT: No such file or directory"},
           Worded{Error({.reason = "no"}), "no", "no", "refused: 0: no"},
       }) {
    EXPECT_EQ(each.error.explanation(), each.explanation);
    EXPECT_EQ(each.error.summary(), each.summary);
    EXPECT_EQ(each.error.message(), each.message);
  }
}

TEST(Error, WithoutACallIsARefusal) {
  EXPECT_TRUE(refused().refused());
  EXPECT_FALSE(missing().refused());
}

TEST(Error, ListsItsCausesInBrackets) {
  EXPECT_EQ(Error({.code = ENODEV, .object = "x", .reason = "none", .causes = {missing(), refused()}}).message(),
            "x: refused: ENODEV: none [/dev/vfio/9: open: ENOENT: No such file or directory] [map 0x123+4 KiB: "
            "refused: EINVAL: unaligned]");
}

TEST(Error, CanBeCopiedWithMoreToSay) {
  Error::Details details = locked().details();
  details.reason += "; again";
  const Error more(std::move(details));
  EXPECT_EQ(more.operation(), "VFIO_IOMMU_MAP_DMA");
  EXPECT_EQ(more.reason(), "locked memory is limited to 8 MiB; again");
  EXPECT_EQ(more.remedies(), locked().remedies());
}

TEST(ErrorKind, IsDerivedFromTheErrnoUnlessItIsGiven) {
  EXPECT_EQ(missing().kind(), ErrorKind::not_found);
  EXPECT_EQ(refused().kind(), ErrorKind::invalid_argument);
  EXPECT_EQ(locked().kind(), ErrorKind::no_memory);
  EXPECT_EQ(Error({.code = ENOMEM, .kind = ErrorKind::locked_memory}).kind(), ErrorKind::locked_memory);
  EXPECT_EQ(Error({.code = ELOOP}).kind(), ErrorKind::other);
}

TEST(ErrorKind, HasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (auto kind = ErrorKind::other; kind <= ErrorKind::invalid_answer;
       kind = static_cast<ErrorKind>(static_cast<int>(kind) + 1))
    EXPECT_TRUE(names.insert(to_string(kind)).second) << to_string(kind);
  EXPECT_EQ(to_string(ErrorKind::group_not_viable), "group_not_viable");
  EXPECT_EQ(to_string(ErrorKind::invalid_answer), "invalid_answer");
  EXPECT_EQ(to_string(static_cast<ErrorKind>(200)), "other") << "of a newer version";
}

TEST(Error, ANegatedErrnoIsMadePositive) {
  const Error error({.code = -EIO, .object = "x"});
  EXPECT_EQ(error.code(), EIO);
  EXPECT_EQ(error.kind(), ErrorKind::device_error);
  EXPECT_EQ(error.message(), "x: refused: EIO: Input/output error");
}

TEST(Error, IsMadeOfWhatAFunctionOfKernelReturned) {
  const Result<void> failed = failure_from(-ENOENT, "open", "/dev/vfio/9");
  EXPECT_EQ(failed.error().message(), missing().message());
}

TEST(Error, AnErrnoWithoutANameIsANumber) { EXPECT_EQ(errno_name(4000), "4000"); }

TEST(Error, AResultOfNothingIsNoLargerThanTwoPointers) { EXPECT_LE(sizeof(Result<void>), 2 * sizeof(void*)); }

}  // namespace error_test
}  // namespace postern
