// SPDX-License-Identifier: Apache-2.0
// find_free_range(): which ranges it returns, in what order, and never a mapped one.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

#include "memory/free_range.hpp"

namespace postern {
namespace free_range_test {

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t huge = std::uint64_t{2} << 20;
constexpr std::uint64_t top = ~std::uint64_t{0};

struct Space {
  ShadowMap mappings;
  std::vector<IovaRange> usable{{{0}, {64 * page - 1}}};
  std::uint64_t page_sizes = page;
  IovaRange within{{0}, {top}};
  Iova hint{};

  std::optional<Iova> find(std::uint64_t length) {
    return find_free_range(mappings, usable, {.length = length, .page_sizes = page_sizes, .within = within}, hint);
  }
  void map(std::uint64_t first, std::uint64_t length) {
    ASSERT_EQ(mappings.insert({{first}, {first + length - 1}}, nullptr, Access::read), nullptr);
  }
};

TEST(FreeRange, IsNeverZeroAndGoesOnWhereItStopped) {
  Space space;
  EXPECT_EQ(space.find(page), Iova{page});
  space.map(page, page);
  EXPECT_EQ(space.find(3 * page), Iova{2 * page});
  EXPECT_EQ(space.find(page), Iova{5 * page}) << "not looked for again from the start";
}

TEST(FreeRange, StartsAgainAtTheFrontAndEndsWhereNothingIsFree) {
  Space space;
  space.usable = {{{0}, {4 * page - 1}}};
  space.map(page, page);
  space.map(2 * page, page);
  EXPECT_EQ(space.find(page), Iova{3 * page});
  space.map(3 * page, page);
  EXPECT_EQ(space.find(page), std::nullopt);
  space.mappings.erase({{2 * page}, {3 * page - 1}});
  EXPECT_EQ(space.find(page), Iova{2 * page});
  EXPECT_EQ(space.find(2 * page), std::nullopt);
}

TEST(FreeRange, LiesInOneUsableRangeAndWithinWhatTheDeviceReaches) {
  Space space;
  space.usable = {{{page}, {3 * page - 1}}, {{16 * page}, {32 * page - 1}}, {{huge}, {top}}};
  EXPECT_EQ(space.find(3 * page), Iova{16 * page});
  space.within = {{20 * page}, {24 * page - 1}};
  EXPECT_EQ(space.find(4 * page), Iova{20 * page});
  EXPECT_EQ(space.find(5 * page), std::nullopt);
  space.within = {{top - page + 1}, {top}};
  EXPECT_EQ(space.find(page), Iova{top - page + 1});
  space.map(top - page + 1, page);
  EXPECT_EQ(space.find(page), std::nullopt) << "nor does it wrap";
}

TEST(FreeRange, IsAlignedToThePagesThatItFills) {
  Space space;
  space.usable = {{{page}, {4 * huge - 1}}};
  space.page_sizes = page | huge;
  EXPECT_EQ(space.find(page), Iova{page});
  EXPECT_EQ(space.find(huge), Iova{huge});
  EXPECT_EQ(space.find(huge + page), Iova{2 * huge});
  space.usable = {{{page}, {page + huge - 1}}};
  EXPECT_EQ(space.find(huge), Iova{page}) << "to a smaller one where it must be";
}

RC_GTEST_PROP(FreeRange, IsFreeUntilNothingIsLeft, ()) {
  Space space;
  space.page_sizes = page | 4 * page;
  std::vector<bool> taken(64, false);
  taken[0] = true;  // never returned
  for (const auto step : *rc::gen::container<std::vector<std::uint8_t>>(rc::gen::arbitrary<std::uint8_t>())) {
    const std::uint64_t pages = step % 6 + 1U;
    const auto found = space.find(pages * page);
    if (!found) {
      const auto none = std::vector<bool>(pages, false);
      RC_ASSERT(std::search(taken.begin(), taken.end(), none.begin(), none.end()) == taken.end());
      continue;
    }
    for (std::uint64_t i = 0; i < pages; ++i) {
      RC_ASSERT(!taken.at(found->value / page + i));
      taken[found->value / page + i] = true;
    }
    space.map(found->value, pages * page);
    if (step % 3 == 0) {
      space.mappings.erase({*found, *found + (pages * page - 1)});
      for (std::uint64_t i = 0; i < pages; ++i) taken[found->value / page + i] = false;
    }
  }
}

}  // namespace free_range_test
}  // namespace postern
