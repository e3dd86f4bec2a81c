// SPDX-License-Identifier: Apache-2.0
// Tests of IovaTree, mostly by comparison with a std::map.
#include "memory/iova_tree.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <vector>

namespace postern::memory {
namespace iova_tree_test {

constexpr std::uint64_t page = 4096;

// A tree with its records, and a model to compare it with.
class TreeAndModel {
 public:
  void insert(std::uint64_t first, std::uint64_t last) {
    Ranged& record = records_.emplace_back(Ranged{{{first}, {last}}});
    tree_.insert(tree_.place_of(first), record);
    model_[first] = &record;
  }
  bool erase(std::uint64_t first) {
    const auto found = model_.find(first);
    const bool there = found != model_.end();
    const IovaRange range = there ? found->second->range : IovaRange{{first}, {first + page - 1}};
    Ranged* const record = tree_.erase(range);
    if (there) model_.erase(found);
    return (record != nullptr) == there && (!there || record->range == range);
  }
  void move(std::uint64_t from, std::uint64_t to) {
    Ranged* const record = model_.at(from);
    model_.erase(from);
    tree_.move(*record, {to});
    model_[to] = record;
  }
  void clear() {
    tree_.clear();
    model_.clear();
  }

  [[nodiscard]] bool has(std::uint64_t first) const { return model_.count(first) != 0; }
  [[nodiscard]] const std::map<std::uint64_t, Ranged*>& model() const { return model_; }
  [[nodiscard]] const IovaTree& tree() const { return tree_; }

  [[nodiscard]] Ranged* model_at_or_below(std::uint64_t key) const {
    const auto after = model_.upper_bound(key);
    return after == model_.begin() ? nullptr : std::prev(after)->second;
  }
  [[nodiscard]] Ranged* model_at_or_above(std::uint64_t key) const {
    const auto found = model_.lower_bound(key);
    return found == model_.end() ? nullptr : found->second;
  }
  void expect_same_order() const {
    std::vector<Ranged*> seen;
    tree_.for_each([&](Ranged& record) { seen.push_back(&record); });
    std::vector<Ranged*> expected;
    for (const auto& [first, record] : model_) expected.push_back(record);
    ASSERT_EQ(seen, expected);
  }
  void expect_same_neighbours(std::uint64_t key) const {
    ASSERT_EQ(tree_.at_or_below({key}), model_at_or_below(key)) << std::hex << key;
    ASSERT_EQ(tree_.at_or_above({key}), model_at_or_above(key)) << std::hex << key;
  }

 private:
  IovaTree tree_;
  std::map<std::uint64_t, Ranged*> model_;
  std::deque<Ranged> records_;
};

TEST(IovaTree, AnEmptyTreeHasNothingAnywhere) {
  const IovaTree tree;
  for (const std::uint64_t key : {std::uint64_t{0}, page, ~std::uint64_t{0} - 1, ~std::uint64_t{0}}) {
    EXPECT_EQ(tree.at_or_below({key}), nullptr);
    EXPECT_EQ(tree.at_or_above({key}), nullptr);
  }
}

TEST(IovaTree, ARangeThatLooksLikeATreesOwnMarkErasesNothing) {
  IovaTree tree;
  Ranged record{{{page}, {2 * page - 1}}};
  for (const bool is_empty : {true, false}) {
    if (!is_empty) tree.insert(tree.place_of(page), record);
    EXPECT_EQ(tree.erase({{0}, {~std::uint64_t{0}}}), nullptr);
    EXPECT_EQ(tree.erase({{~std::uint64_t{0}}, {0}}), nullptr);
  }
  EXPECT_EQ(tree.erase(record.range), &record);
}

TEST(IovaTree, TheLowestAndTheHighestPageAreKeptApartFromTheTreesOwnMarks) {
  TreeAndModel both;
  both.insert(0, page - 1);
  both.insert(~std::uint64_t{0} - page + 1, ~std::uint64_t{0});
  for (const std::uint64_t key : {std::uint64_t{0}, page, ~std::uint64_t{0} - page, ~std::uint64_t{0} - 1}) {
    both.expect_same_neighbours(key);
  }
  EXPECT_NE(both.tree().at_or_below({~std::uint64_t{0}}), nullptr);
  EXPECT_EQ(both.tree().at_or_above({~std::uint64_t{0}}), nullptr);
  EXPECT_TRUE(both.erase(0));
  EXPECT_TRUE(both.erase(~std::uint64_t{0} - page + 1));
  both.expect_same_order();
}

TEST(IovaTree, ErasingARangeThatIsNotThereLeavesTheTreeAlone) {
  TreeAndModel both;
  for (std::uint64_t i = 1; i < 500; ++i) both.insert(i * 2 * page, i * 2 * page + page - 1);
  IovaTree tree;
  EXPECT_EQ(tree.erase({{0}, {page - 1}}), nullptr);
  EXPECT_EQ(tree.erase({{~std::uint64_t{0}}, {~std::uint64_t{0}}}), nullptr);
  EXPECT_TRUE(both.erase(3 * page));
  EXPECT_TRUE(both.erase(1000 * page));
  both.expect_same_order();
}

struct Order {
  const char* name;
  std::uint64_t (*key)(std::uint64_t i, std::uint64_t count);
};
class IovaTreeInOrder : public testing::TestWithParam<Order> {};

TEST_P(IovaTreeInOrder, EveryRecordIsFoundThroughGrowthAndShrinkage) {
  constexpr std::uint64_t count = 20'000;
  TreeAndModel both;
  for (std::uint64_t i = 0; i < count; ++i) {
    const std::uint64_t first = GetParam().key(i, count) * 2 * page;
    both.insert(first, first + page - 1);
    if (i % 97 == 0) both.expect_same_neighbours(first + page);
  }
  both.expect_same_order();
  for (std::uint64_t i = 0; i < count; ++i) {
    ASSERT_TRUE(both.erase(GetParam().key(i, count) * 2 * page));
    if (i % 97 == 0) both.expect_same_neighbours(GetParam().key(i, count) * 2 * page);
    if (i % 4999 == 0) both.expect_same_order();
  }
  both.expect_same_order();
  EXPECT_EQ(both.tree().bytes(), IovaTree().bytes());
}

INSTANTIATE_TEST_SUITE_P(
    Orders, IovaTreeInOrder,
    testing::Values(Order{"Ascending", [](std::uint64_t i, std::uint64_t) { return i; }},
                    Order{"Descending", [](std::uint64_t i, std::uint64_t count) { return count - 1 - i; }},
                    Order{"Scattered", [](std::uint64_t i, std::uint64_t count) { return i * 7919 % count; }},
                    Order{"FromBothEnds",
                          [](std::uint64_t i, std::uint64_t count) { return i % 2 == 0 ? i / 2 : count - 1 - i / 2; }}),
    [](const auto& order) { return order.param.name; });

TEST(IovaTree, ChurnOverALargeTreeMatchesTheModel) {
  std::mt19937_64 random(7);
  TreeAndModel both;
  for (int round = 0; round < 6; ++round) {
    const std::uint64_t target = round % 2 == 0 ? 30'000 : 500;
    for (int i = 0; i < 60'000; ++i) {
      const std::uint64_t first = random() % 40'000 * page;
      if (both.has(first) && both.model().size() > target) {
        ASSERT_TRUE(both.erase(first));
      } else if (!both.has(first) && both.model().size() < target) {
        both.insert(first, first + page - 1);
      }
      if (i % 31 == 0) both.expect_same_neighbours(random() % 40'000 * page);
    }
    both.expect_same_order();
  }
}

TEST(IovaTree, AMovedRecordIsFoundAtItsNewFirstOnly) {
  std::mt19937_64 random(11);
  TreeAndModel both;
  for (std::uint64_t i = 0; i < 5000; ++i) both.insert(i * 64 * page, (i * 64 + 32) * page - 1);
  for (int i = 0; i < 20'000; ++i) {
    const Ranged* const record = both.model_at_or_below((1 + random() % 5000) * 64 * page);
    const IovaRange from = record->range;
    const std::uint64_t to = from.last.value + 1 - (1 + random() % 60) * page;
    const Ranged* const before = from.first.value == 0 ? nullptr : both.model_at_or_below(from.first.value - 1);
    if (to > from.last.value || (before != nullptr && to <= before->range.last.value)) continue;
    both.move(from.first.value, to);
    both.expect_same_neighbours(to);
    both.expect_same_neighbours(from.first.value);
  }
  both.expect_same_order();
}

TEST(IovaTree, AClearedTreeIsEmptyAndOfUse) {
  TreeAndModel both;
  for (std::uint64_t i = 0; i < 10'000; ++i) both.insert(i * page, i * page + page - 1);
  both.clear();
  both.expect_same_order();
  EXPECT_EQ(both.tree().bytes(), IovaTree().bytes());
  both.insert(page, 2 * page - 1);
  both.expect_same_order();
}

RC_GTEST_PROP(IovaTree, AnySequenceOfInsertsAndErasesMatchesAMap, ()) {
  TreeAndModel both;
  const auto keys = *rc::gen::container<std::vector<std::uint64_t>>(rc::gen::inRange<std::uint64_t>(0, 200));
  for (const std::uint64_t key : keys) {
    const std::uint64_t first = key * page;
    if (both.has(first)) {
      RC_ASSERT(both.erase(first));
    } else {
      both.insert(first, first + page - 1);
    }
    for (const std::uint64_t near : {first, first + 1, first + page}) {
      RC_ASSERT(both.tree().at_or_below({near}) == both.model_at_or_below(near));
      RC_ASSERT(both.tree().at_or_above({near}) == both.model_at_or_above(near));
    }
  }
}

}  // namespace iova_tree_test
}  // namespace postern::memory
