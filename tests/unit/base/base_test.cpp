// SPDX-License-Identifier: Apache-2.0
// Results, the log, iovas, and sizes as text.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cerrno>
#include <memory>
#include <postern/iova.hpp>
#include <postern/log.hpp>
#include <postern/result.hpp>

#include "base/log.hpp"
#include "base/words.hpp"

namespace postern {
namespace base_test {

Result<std::unique_ptr<int>> boxed(int number) {
  if (number < 0) return failure({.code = ERANGE, .operation = {}, .object = "number"});
  return std::make_unique<int>(number);
}

Result<void> require_even(int number) {
  if (number % 2 != 0) return failure({.code = EINVAL, .operation = {}, .object = "number"});
  return {};
}

Result<int> half_of(int number) {
  const auto box = POSTERN_TRY(boxed(number));
  POSTERN_TRY(require_even(*box));
  return *box / 2;
}

TEST(Try, GivesTheValueOrReturnsTheError) {
  EXPECT_EQ(half_of(8).value(), 4);
  EXPECT_EQ(half_of(-2).error().code(), ERANGE);
  EXPECT_EQ(half_of(7).error().code(), EINVAL);
}

// Nested uses must compile with -Wshadow, so no name may be declared twice.
Result<int> quarter_of(int number) { return POSTERN_TRY(half_of(POSTERN_TRY(half_of(number)))); }

TEST(Try, MayBePartOfAnother) {
  EXPECT_EQ(quarter_of(8).value(), 2);
  EXPECT_EQ(quarter_of(6).error().code(), EINVAL);
}

TEST(Log, HandsAContextBack) {
  int seen = 0;
  const LogHandlerWithContext keep = [](void* context, LogKind /*kind*/, const Error& error) noexcept {
    *static_cast<int*>(context) = error.code();
  };
  set_log_handler(keep, &seen);
  log(LogKind::remark, Error({.code = EBUSY}));
  EXPECT_EQ(seen, EBUSY);
  set_log_handler(nullptr);
  log(LogKind::remark, Error({.code = EIO}));
  EXPECT_EQ(seen, EBUSY) << "the handler without a context takes its place";
  set_log_handler(keep, &seen);
  set_log_handler(nullptr, nullptr);
  log(LogKind::remark, Error({.code = EIO}));
  EXPECT_EQ(seen, EBUSY);
}

TEST(Log, AHandlerMayLogAndSetAnother) {
  static int seen = 0;
  seen = 0;
  set_log_handler([](LogKind /*kind*/, const Error& error) noexcept {
    set_log_handler([](LogKind /*kind*/, const Error& /*error*/) noexcept { ++seen; });
    log(LogKind::remark, error);
  });
  log(LogKind::remark, Error({.code = EBUSY}));
  set_log_handler(nullptr);
  EXPECT_EQ(seen, 1);
}

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
