// SPDX-License-Identifier: Apache-2.0
// Deadlines that have passed, that are to come, and that never come; and polling until a deadline.
#include <postern/deadline.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

namespace postern {
namespace deadline_test {

using namespace std::chrono_literals;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

TEST(Deadline, OfNowOrOfThePastIsOver) {
  for (const milliseconds from_now : {0ms, -1ms, milliseconds::min()}) {
    const Deadline deadline(from_now);
    EXPECT_TRUE(deadline.is_over()) << from_now.count();
    EXPECT_EQ(deadline.left(), 0ms);
  }
}

TEST(Deadline, ToComeHasTimeLeftRoundedUp) {
  const Deadline deadline(1h);
  EXPECT_FALSE(deadline.is_over());
  EXPECT_LE(deadline.left(), 1h);
  EXPECT_GT(deadline.left(), 59min);
  const Deadline soon(20ms);
  while (!soon.is_over()) EXPECT_LE(soon.left(), 20ms);
  EXPECT_EQ(soon.left(), 0ms);
}

TEST(Deadline, BeyondTheClockIsNever) {
  for (const milliseconds from_now : {milliseconds::max(), milliseconds::max() - 1ms, milliseconds::max() / 2}) {
    const Deadline deadline(from_now);
    EXPECT_FALSE(deadline.is_over());
    EXPECT_GT(deadline.left(), 24h * 365 * 100);
  }
}

TEST(PollUntil, LooksOnceThoughTheDeadlineHasPassed) {
  for (const bool outcome : {false, true}) {
    int looks = 0;
    EXPECT_EQ(poll_until(Deadline(-1ms), 1h, [&] { return ++looks, outcome; }), outcome);
    EXPECT_EQ(looks, 1);
  }
}

TEST(PollUntil, LooksAgainAfterTheDeadline) {
  // An event before the deadline is noticed even if the thread slept past it.
  bool has_happened = false;
  int looks = 0;
  EXPECT_TRUE(poll_until(Deadline(10ms), 1us, [&] {
    if (++looks > 1) return has_happened;
    std::this_thread::sleep_for(30ms);
    has_happened = true;
    return false;
  }));
  EXPECT_EQ(looks, 2);
}

TEST(PollUntil, EndsWithTheDeadlineHoweverLongThePause) {
  const auto started = steady_clock::now();
  int looks = 0;
  EXPECT_FALSE(poll_until(Deadline(20ms), 1h, [&] { return ++looks, false; }));
  EXPECT_EQ(looks, 2);
  EXPECT_GE(steady_clock::now() - started, 20ms);
  EXPECT_LT(steady_clock::now() - started, 30min);
}

TEST(PollUntil, SpinsWithoutAPauseAndWaitsForEverWhereAsked) {
  std::atomic<bool> flag = false;
  std::thread other([&] {
    std::this_thread::sleep_for(20ms);
    flag = true;
  });
  EXPECT_TRUE(poll_until(Deadline(milliseconds::max()), 0us, [&] { return flag.load(); }));
  other.join();
  EXPECT_TRUE(poll_until(Deadline(milliseconds::max()), 1us, [&] { return flag.load(); }));
}

}  // namespace deadline_test
}  // namespace postern
