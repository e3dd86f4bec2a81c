// SPDX-License-Identifier: Apache-2.0
// DirtyBitmap: its size, and the runs of marked pages.
#include <gmock/gmock.h>

#include <postern/dirty_tracker.hpp>
#include <random>

namespace postern {
namespace dirty_bitmap_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

using Runs = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Runs runs_of(std::vector<std::uint64_t> words, std::uint64_t pages) {
  Runs runs;
  DirtyBitmap{.words = words}.for_each_run(
      pages, [&](std::uint64_t first, std::uint64_t count) { runs.emplace_back(first, count); });
  return runs;
}
// One page at a time.
Runs slow_runs_of(const std::vector<std::uint64_t>& words, std::uint64_t pages) {
  Runs runs;
  for (std::uint64_t at = 0; at < pages; ++at) {
    if ((words[at / 64] >> (at % 64) & 1) == 0) continue;
    if (!runs.empty() && runs.back().first + runs.back().second == at) {
      ++runs.back().second;
    } else {
      runs.emplace_back(at, 1);
    }
  }
  return runs;
}

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t all = ~std::uint64_t{0};
constexpr std::uint64_t top = std::uint64_t{1} << 63;

TEST(DirtyBitmap, HasABitForPartOfAPage) {
  EXPECT_EQ(DirtyBitmap::words_for(0, page), 0U);
  EXPECT_EQ(DirtyBitmap::words_for(1, page), 1U);
  EXPECT_EQ(DirtyBitmap::words_for(64 * page, page), 1U);
  EXPECT_EQ(DirtyBitmap::words_for(64 * page + 1, page), 2U);
  EXPECT_EQ(DirtyBitmap::words_for(all, 1), (std::uint64_t{1} << 58));
}

TEST(DirtyBitmap, VisitsRunsWithinAndAcrossWords) {
  EXPECT_THAT(runs_of({0b1011, 0}, 128), ElementsAre(Pair(0, 2), Pair(3, 1)));
  EXPECT_THAT(runs_of({top, 1}, 128), ElementsAre(Pair(63, 2)));
  EXPECT_THAT(runs_of({top, all, 1}, 192), ElementsAre(Pair(63, 66)));
  EXPECT_THAT(runs_of({all, all}, 128), ElementsAre(Pair(0, 128)));
  EXPECT_THAT(runs_of({top, 2}, 128), ElementsAre(Pair(63, 1), Pair(65, 1)));
  EXPECT_THAT(runs_of({0, 0}, 128), IsEmpty());
}

TEST(DirtyBitmap, IgnoresBitsBeyondItsPages) {
  EXPECT_THAT(runs_of({all, all}, 70), ElementsAre(Pair(0, 70)));
  EXPECT_THAT(runs_of({0, top}, 70), IsEmpty());
  EXPECT_THAT(runs_of({all}, 1), ElementsAre(Pair(0, 1)));
  EXPECT_THAT(runs_of({}, 0), IsEmpty());
}

TEST(DirtyBitmap, VisitsWhatAPageByPageSearchFinds) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::uint64_t> words(1 + random() % 6);
    for (std::uint64_t& word : words) {
      switch (random() % 4) {
        case 0:
          word = 0;
          break;
        case 1:
          word = all;
          break;
        case 2:
          word = random();
          break;
        default:
          word = random();
          word &= random();
          word &= random();
          break;
      }
    }
    const std::uint64_t pages = 64 * words.size() - random() % 64;
    ASSERT_EQ(runs_of(words, pages), slow_runs_of(words, pages)) << "round " << round;
  }
}

}  // namespace dirty_bitmap_test
}  // namespace postern
