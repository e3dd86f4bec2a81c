// SPDX-License-Identifier: Apache-2.0
// Tests of ShadowMap: refusals, the mappings that an unmap covers, and a comparison with a model.
#include "memory/shadow_map.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <vector>

namespace postern {
namespace shadow_map_test {

constexpr std::uint64_t page = 4096;
using Kind = ShadowMap::Cover::Kind;

IovaRange pages(std::uint64_t first, std::uint64_t count) { return {{first * page}, {(first + count) * page - 1}}; }

void* address_of(std::uint64_t number) { return reinterpret_cast<void*>(number); }

// Inserts a mapping that must not be refused.
void put(ShadowMap& map, IovaRange range) {
  ASSERT_EQ(map.insert(range, address_of(range.first.value), Access::read_write), nullptr) << to_string(range);
}

TEST(ShadowMap, AMappingIsFoundAtItsFirstAndItsLastByteAndNotBesideThem) {
  ShadowMap map;
  ASSERT_EQ(map.insert(pages(4, 2), address_of(0x7000), Access::read), nullptr);
  ASSERT_NE(map.find({4 * page}), nullptr);
  EXPECT_EQ(map.find({6 * page - 1}), map.find({4 * page}));
  EXPECT_EQ(map.find({4 * page})->range, pages(4, 2));
  EXPECT_EQ(map.find({4 * page})->address, address_of(0x7000));
  EXPECT_EQ(map.find({4 * page})->access, Access::read);
  EXPECT_EQ(map.find({4 * page - 1}), nullptr);
  EXPECT_EQ(map.find({6 * page}), nullptr);
}

TEST(ShadowMap, AnInsertOverAnExistingMappingIsRefusedAndNamesIt) {
  ShadowMap map;
  put(map, pages(10, 10));
  for (const IovaRange range :
       {pages(10, 10), pages(10, 1), pages(19, 1), pages(15, 2), pages(0, 11), pages(19, 9), pages(0, 99)}) {
    const MappingRecord* const taken = map.insert(range, nullptr, Access::read);
    ASSERT_NE(taken, nullptr) << to_string(range);
    EXPECT_EQ(taken->range, pages(10, 10));
  }
  EXPECT_EQ(map.size(), 1U);
}

TEST(ShadowMap, OneByteInCommonIsAnOverlap) {
  ShadowMap map;
  put(map, {{0x1000}, {0x1fff}});
  EXPECT_NE(map.insert({{0x1fff}, {0x2fff}}, nullptr, Access::read), nullptr);
  EXPECT_NE(map.insert({{0x0}, {0x1000}}, nullptr, Access::read), nullptr);
  put(map, {{0x2000}, {0x2000}});
  EXPECT_NE(map.insert({{0x2000}, {0x2fff}}, nullptr, Access::read), nullptr);
}

TEST(ShadowMap, OfSeveralMappingsInTheWayTheFirstIsNamed) {
  ShadowMap map;
  put(map, pages(10, 1));
  put(map, pages(20, 1));
  EXPECT_EQ(map.insert(pages(5, 100), nullptr, Access::read)->range, pages(10, 1));
  EXPECT_EQ(map.insert(pages(11, 100), nullptr, Access::read)->range, pages(20, 1));
}

TEST(ShadowMap, MappingsThatTouchDoNotOverlap) {
  ShadowMap map;
  put(map, pages(10, 10));
  put(map, pages(20, 10));
  put(map, pages(0, 10));
  EXPECT_EQ(map.size(), 3U);
}

TEST(ShadowMap, TheWholeSpaceIsOneMappingAndLeavesNoRoom) {
  ShadowMap map;
  const IovaRange all{{0}, {~std::uint64_t{0}}};
  put(map, all);
  EXPECT_NE(map.insert(pages(1, 1), nullptr, Access::read), nullptr);
  EXPECT_NE(map.find({~std::uint64_t{0}}), nullptr);
  EXPECT_EQ(map.cover(all).kind, Kind::whole);
  EXPECT_EQ(map.cover(pages(0, 1)).kind, Kind::split);
  EXPECT_TRUE(map.erase(all));
  EXPECT_TRUE(map.empty());
}

TEST(ShadowMap, TheLastPageOfTheSpaceCanBeMapped) {
  ShadowMap map;
  const IovaRange last{{~std::uint64_t{0} - page + 1}, {~std::uint64_t{0}}};
  put(map, last);
  EXPECT_EQ(map.insert({{page}, {~std::uint64_t{0}}}, nullptr, Access::read)->range, last);
  EXPECT_EQ(map.find({~std::uint64_t{0}})->range, last);
  EXPECT_EQ(map.at_or_above({0})->range, last);
  EXPECT_EQ(map.erase_within({{0}, {~std::uint64_t{0}}}), 1U);
}

TEST(ShadowMap, AnEraseTakesExactlyTheRangeThatWasMapped) {
  ShadowMap map;
  put(map, pages(10, 10));
  EXPECT_FALSE(map.erase(pages(10, 9)));
  EXPECT_FALSE(map.erase(pages(11, 9)));
  EXPECT_FALSE(map.erase(pages(10, 11)));
  EXPECT_FALSE(map.erase(pages(30, 1)));
  EXPECT_EQ(map.size(), 1U);
  EXPECT_TRUE(map.erase(pages(10, 10)));
  EXPECT_FALSE(map.erase(pages(10, 10)));
}

TEST(ShadowMap, CoverTellsNothingFromWholeFromSplit) {
  ShadowMap map;
  put(map, pages(10, 10));
  put(map, pages(30, 10));
  EXPECT_EQ(map.cover(pages(0, 10)).kind, Kind::nothing);
  EXPECT_EQ(map.cover(pages(20, 10)).kind, Kind::nothing);
  EXPECT_EQ(map.cover(pages(20, 10)).mapping, nullptr);
  EXPECT_EQ(map.cover(pages(10, 10)).kind, Kind::whole);
  EXPECT_EQ(map.cover(pages(0, 100)).kind, Kind::whole);
  EXPECT_EQ(map.cover(pages(0, 100)).mapping->range, pages(10, 10));
  EXPECT_EQ(map.cover(pages(15, 1)).kind, Kind::split);
  EXPECT_EQ(map.cover(pages(0, 15)).mapping->range, pages(10, 10));
  EXPECT_EQ(map.cover(pages(0, 15)).kind, Kind::split);
  EXPECT_EQ(map.cover(pages(10, 25)).kind, Kind::split);
  EXPECT_EQ(map.cover(pages(10, 25)).mapping->range, pages(30, 10));
}

TEST(ShadowMap, EraseWithinTakesWholeMappingsAndLeavesTheRest) {
  ShadowMap map;
  for (std::uint64_t i = 0; i < 1000; ++i) put(map, pages(i * 2, 1));
  EXPECT_EQ(map.erase_within(pages(101, 799)), 399U);
  EXPECT_EQ(map.size(), 601U);
  EXPECT_EQ(map.at_or_above({101 * page})->range, pages(900, 1));
  EXPECT_NE(map.find({100 * page}), nullptr);
}

TEST(ShadowMap, AMappingStaysAtItsAddressUntilItIsErased) {
  ShadowMap map;
  put(map, pages(1'000'000, 1));
  const MappingRecord* const mapping = map.find({1'000'000 * page});
  for (std::uint64_t i = 0; i < 50'000; ++i) put(map, pages(i * 3, 1));
  for (std::uint64_t i = 0; i < 50'000; ++i) ASSERT_TRUE(map.erase(pages(i * 3, 1)));
  EXPECT_EQ(map.find({1'000'000 * page}), mapping);
  EXPECT_EQ(mapping->range, pages(1'000'000, 1));
}

TEST(ShadowMap, AMapThatHasShrunkGivesItsMemoryBack) {
  ShadowMap map;
  for (std::uint64_t i = 0; i < 100'000; ++i) put(map, pages(i, 1));
  for (std::uint64_t i = 0; i < 99'900; ++i) ASSERT_TRUE(map.erase(pages(i, 1)));
  EXPECT_LT(map.memory_bytes(), 64U * 1024);
  map.clear();
  EXPECT_TRUE(map.empty());
  put(map, pages(1, 1));
}

// Bytes per mapping, for mappings inserted in sequence or in random order.
double bytes_each(std::size_t count, bool shuffled, std::size_t churn) {
  std::vector<std::uint64_t> places(2 * count);
  std::iota(places.begin(), places.end(), 1);
  std::mt19937_64 random(5);
  if (shuffled) std::shuffle(places.begin(), places.end(), random);
  ShadowMap map;
  for (std::size_t i = 0; i < count; ++i) put(map, pages(places[i] * 2, 1));
  for (std::size_t i = 0; i < churn; ++i) {
    const std::size_t out = random() % count;
    const std::size_t in = count + random() % count;
    EXPECT_TRUE(map.erase(pages(places[out] * 2, 1)));
    put(map, pages(places[in] * 2, 1));
    std::swap(places[out], places[in]);
  }
  return static_cast<double>(map.memory_bytes()) / static_cast<double>(count);
}

TEST(ShadowMap, AMappingTakesAtMost96Bytes) {
  for (const std::size_t count : {1'000UL, 60'000UL, 200'000UL}) {
    EXPECT_LE(bytes_each(count, false, 0), 96) << count << " in sequence";
    EXPECT_LE(bytes_each(count, true, 0), 96) << count << " in random order";
    EXPECT_LE(bytes_each(count, true, 4 * count), 96) << count << " after churn";
  }
}

// The same map, implemented by std::map.
class Model {
 public:
  [[nodiscard]] const IovaRange* overlapping(IovaRange range) const {
    for (const auto& [first, mapped] : ranges_) {
      if (mapped.overlaps(range)) return &mapped;
    }
    return nullptr;
  }
  void insert(IovaRange range) { ranges_[range.first.value] = range; }
  std::size_t erase_within(IovaRange range) {
    return std::erase_if(ranges_, [&](const auto& entry) { return range.contains(entry.second); });
  }
  [[nodiscard]] bool is_cut_by(IovaRange range) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const auto& entry) {
      return entry.second.overlaps(range) && !range.contains(entry.second);
    });
  }
  [[nodiscard]] std::vector<IovaRange> all() const {
    std::vector<IovaRange> ranges;
    for (const auto& [first, range] : ranges_) ranges.push_back(range);
    return ranges;
  }

 private:
  std::map<std::uint64_t, IovaRange> ranges_;
};

RC_GTEST_PROP(ShadowMap, AnySequenceOfMapsAndUnmapsMatchesAModel, ()) {
  ShadowMap map;
  Model model;
  const auto steps = *rc::gen::container<std::vector<std::tuple<bool, std::uint64_t, std::uint64_t>>>(rc::gen::tuple(
      rc::gen::arbitrary<bool>(), rc::gen::inRange<std::uint64_t>(0, 300), rc::gen::inRange<std::uint64_t>(1, 12)));
  for (const auto& [is_map, first, count] : steps) {
    const IovaRange range = pages(first, count);
    const IovaRange* const taken = model.overlapping(range);
    const ShadowMap::Cover cover = map.cover(range);
    RC_ASSERT((cover.kind == Kind::nothing) == (taken == nullptr));
    RC_ASSERT((cover.kind == Kind::split) == model.is_cut_by(range));
    if (is_map) {
      const MappingRecord* const refused = map.insert(range, nullptr, Access::read);
      RC_ASSERT((refused == nullptr) == (taken == nullptr));
      if (refused != nullptr) RC_ASSERT(refused->range == *taken);
      if (refused == nullptr) model.insert(range);
    } else if (cover.kind == Kind::whole) {
      RC_ASSERT(cover.mapping->range == *taken);
      RC_ASSERT(map.erase_within(range) == model.erase_within(range));
    }
  }
  std::vector<IovaRange> seen;
  map.for_each([&](const MappingRecord& mapping) { seen.push_back(mapping.range); });
  RC_ASSERT(seen == model.all());
  RC_ASSERT(map.size() == seen.size());
}

}  // namespace shadow_map_test
}  // namespace postern
