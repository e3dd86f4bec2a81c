// SPDX-License-Identifier: Apache-2.0
// Tests of IovaAllocator: its rules, edge cases, and a comparison with a model.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <map>
#include <postern/iova_allocator.hpp>
#include <random>
#include <vector>

namespace postern {
namespace iova_allocator_test {

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t gib = 1024 * mib;
constexpr std::uint64_t page = 4 * kib;
constexpr std::uint64_t usual_pages = page | 2 * mib | gib;
constexpr std::uint64_t top = ~std::uint64_t{0};

IovaAllocator allocator_of(std::vector<IovaRange> usable, std::uint64_t page_sizes = usual_pages) {
  return {usable, page_sizes};
}

TEST(IovaAllocator, ZeroIsNeverChosenButMayBeAskedFor) {
  IovaAllocator allocator = allocator_of({{{0}, {3 * page - 1}}});
  EXPECT_EQ(allocator.allocate(page)->value, page);
  EXPECT_EQ(allocator.allocate(page)->value, 2 * page);
  EXPECT_EQ(allocator.allocate(page).error().code(), ENOSPC);
  EXPECT_EQ(allocator.bytes_free(), page);
  EXPECT_TRUE(allocator.allocate_at({0}, page));
  EXPECT_EQ(allocator.bytes_free(), 0U);
  EXPECT_TRUE(allocator.free({0}, page));
  EXPECT_EQ(allocator.allocate(page).error().code(), ENOSPC);
}

TEST(IovaAllocator, WhatIsInTheWayIsToldWhereTheLengthAloneWouldFit) {
  IovaAllocator allocator = allocator_of({{{0}, {mib - 1}}});
  EXPECT_EQ(
      allocator.allocate(mib).error().reason(),
      "the longest free range has 1 MiB, and 1 MiB are free in 1 range; iova 0, where it starts, is never chosen");
  EXPECT_EQ(allocator.allocate(2 * mib).error().reason(),
            "the longest free range has 1 MiB, and 1 MiB are free in 1 range");
  IovaAllocator other = allocator_of({{{page}, {mib - 1}}, {{mib + page}, {2 * mib - 1}}});
  EXPECT_EQ(
      other.allocate(page, mib).error().reason(),
      "the longest free range has 1020 KiB, and 2040 KiB are free in 2 ranges; none has that much after a suitably "
      "aligned iova other than 0");
}

TEST(IovaAllocator, LongRangesAreAlignedToTheLargestPageThatTheyFill) {
  IovaAllocator allocator = allocator_of({{{0x1000}, {(1ULL << 40) - 1}}});
  EXPECT_EQ(allocator.allocate(page)->value % page, 0U);
  EXPECT_EQ(allocator.allocate(2 * mib - page)->value % page, 0U);
  EXPECT_EQ(allocator.allocate(2 * mib)->value % (2 * mib), 0U);
  EXPECT_EQ(allocator.allocate(3 * mib)->value % (2 * mib), 0U);
  EXPECT_EQ(allocator.allocate(gib + page)->value % gib, 0U);
}

TEST(IovaAllocator, WhereAHugePageFitsNowhereTheNextSmallerOneDoes) {
  IovaAllocator allocator = allocator_of({{{gib + 2 * mib}, {2 * gib + 2 * mib - 1}}});
  const auto iova = allocator.allocate(gib);
  ASSERT_TRUE(iova);
  EXPECT_EQ(iova->value, gib + 2 * mib);

  IovaAllocator small = allocator_of({{{2 * mib + page}, {4 * mib + page - 1}}});
  EXPECT_EQ(small.allocate(2 * mib)->value, 2 * mib + page);
}

TEST(IovaAllocator, AnAlignmentOfTheCallersIsKeptOrRefused) {
  IovaAllocator allocator = allocator_of({{{page}, {64 * mib - 1}}});
  EXPECT_EQ(allocator.allocate(page, 16 * mib)->value, 16 * mib);
  EXPECT_EQ(allocator.allocate(page, 16 * mib)->value, 32 * mib);
  EXPECT_EQ(allocator.allocate(page, 16 * mib)->value, 48 * mib);
  EXPECT_EQ(allocator.allocate(page, 16 * mib).error().code(), ENOSPC);
  EXPECT_EQ(allocator.allocate(page, 1)->value % page, 0U);
  EXPECT_EQ(allocator.allocate(page, 3 * page).error().code(), EINVAL);
  EXPECT_EQ(allocator.allocate(page, 0).error().code(), EINVAL);
  EXPECT_EQ(allocator.allocate(page, 1ULL << 63).error().code(), ENOSPC);
}

TEST(IovaAllocator, AHoleOfExactlyTheRightSizeIsUsedAgain) {
  IovaAllocator allocator = allocator_of({{{page}, {(1ULL << 40) - 1}}});
  std::vector<Iova> blocks;
  for (int i = 0; i < 200; ++i) {
    blocks.push_back(*allocator.allocate(2 * mib));
    static_cast<void>(*allocator.allocate(page));
  }
  ASSERT_TRUE(allocator.free(blocks[77], 2 * mib));
  EXPECT_EQ(allocator.allocate(2 * mib)->value, blocks[77].value);
}

TEST(IovaAllocator, AFitIsFoundBehindManyRangesThatAlignmentSpoils) {
  IovaAllocator allocator = allocator_of({{{2 * mib}, {4 * gib - 1}}});
  std::vector<Iova> blocks;
  ASSERT_TRUE(allocator.allocate_at({2 * mib}, 4 * gib - 2 * mib));
  ASSERT_TRUE(allocator.free({3 * gib}, 2 * mib));
  for (std::uint64_t i = 1; i < 1000; ++i) ASSERT_TRUE(allocator.free({i * 3 * mib + 64 * kib}, 2 * mib));
  ASSERT_TRUE(allocator.free({3 * gib + 2 * mib}, 64 * kib));
  EXPECT_EQ(allocator.allocate(2 * mib, 2 * mib)->value, 3 * gib);
}

TEST(IovaAllocator, AFitIsFoundBehindManyRangesThatAreAPageShort) {
  IovaAllocator allocator = allocator_of({{{page}, {gib - 1}}});
  ASSERT_TRUE(allocator.allocate_at({page}, gib - page));
  // Ranges of 320 and 335 pages are in one list, in the order of insertion or with the last in front.
  for (const std::uint64_t fitting : {1U, 50U, 100U}) {
    for (std::uint64_t i = 1; i <= 100; ++i) {
      ASSERT_TRUE(allocator.free({i * 2 * mib}, (i == fitting ? 335 : 320) * page));
    }
    EXPECT_EQ(allocator.allocate(335 * page)->value, fitting * 2 * mib);
    EXPECT_EQ(allocator.allocate(335 * page).error().code(), ENOSPC);
    for (std::uint64_t i = 1; i <= 100; ++i) {
      ASSERT_TRUE(i == fitting || allocator.allocate_at({i * 2 * mib}, 320 * page));
    }
  }
}

TEST(IovaAllocator, AnAlignmentThatWasHopelessIsTriedAgainAfterAFree) {
  IovaAllocator allocator = allocator_of({{{2 * mib}, {64 * mib - 1}}});
  ASSERT_TRUE(allocator.allocate_at({2 * mib}, 62 * mib));
  ASSERT_TRUE(allocator.free({8 * mib + page}, 2 * mib));
  EXPECT_EQ(allocator.allocate(2 * mib, 2 * mib).error().code(), ENOSPC);
  EXPECT_EQ(allocator.allocate(2 * mib, 2 * mib).error().code(), ENOSPC);
  ASSERT_TRUE(allocator.free({10 * mib + page}, 2 * mib - page));
  EXPECT_EQ(allocator.allocate(2 * mib, 2 * mib)->value, 10 * mib);
}

TEST(IovaAllocator, TheWholeSpaceCanBeUsable) {
  IovaAllocator allocator = allocator_of({{{0}, {top}}});
  EXPECT_EQ(allocator.bytes_free(), 0U);
  EXPECT_EQ(allocator.ranges_free(), 1U);
  ASSERT_TRUE(allocator.allocate_at({top - page + 1}, page));
  EXPECT_EQ(allocator.allocate_at({top - page + 1}, page).error().code(), EEXIST);
  ASSERT_TRUE(allocator.allocate(1ULL << 62));
  ASSERT_TRUE(allocator.free({top - page + 1}, page));
  EXPECT_EQ(allocator.allocate_at({top - page + 1}, 2 * page).error().code(), EOVERFLOW);
  EXPECT_EQ(allocator.free({top - page + 1}, 2 * page).error().code(), EOVERFLOW);
}

TEST(IovaAllocator, AllocationReachesTheTopOfTheSpace) {
  IovaAllocator allocator = allocator_of({{{top - 2 * mib + 1}, {top}}});
  EXPECT_EQ(allocator.allocate(2 * mib)->value, top - 2 * mib + 1);
  EXPECT_EQ(allocator.allocate(page).error().code(), ENOSPC);
  ASSERT_TRUE(allocator.free({top - page + 1}, page));
  EXPECT_EQ(allocator.allocate(page)->value, top - page + 1);
  EXPECT_EQ(allocator.allocate(1ULL << 63).error().code(), ENOSPC);
}

TEST(IovaAllocator, EndsThatFillNoPageAreLeftOut) {
  IovaAllocator allocator =
      allocator_of({{{1}, {3 * page - 2}}, {{5 * page + 1}, {6 * page - 1}}, {{9 * page}, {9 * page + 7}}});
  EXPECT_EQ(allocator.bytes_free(), page);
  EXPECT_EQ(allocator.allocate(page)->value, page);
  EXPECT_EQ(allocator.free({2 * page}, page).error().code(), ERANGE);
}

TEST(IovaAllocator, ARangeSmallerThanAPageNearTheTopIsLeftOut) {
  EXPECT_EQ(allocator_of({{{top - 5}, {top}}}).ranges_free(), 0U);
  EXPECT_EQ(allocator_of({{{0}, {5}}}).ranges_free(), 0U);
}

TEST(IovaAllocator, PagesBelow4KiBCountAs4KiB) {
  EXPECT_EQ(allocator_of({{{0}, {2 * page - 1}}}, 0x201).bytes_free(), 2 * page);
  EXPECT_EQ(allocator_of({{{0}, {2 * page - 1}}}, 0x201).allocate(512).error().code(), EINVAL);
}

TEST(IovaAllocator, NothingUsableMeansNothingToAllocate) {
  IovaAllocator allocator = allocator_of({});
  EXPECT_EQ(allocator.bytes_free(), 0U);
  EXPECT_EQ(allocator.ranges_free(), 0U);
  EXPECT_EQ(allocator.largest_free(), 0U);
  EXPECT_EQ(allocator.allocate(page).error().code(), ENOSPC);
  EXPECT_EQ(allocator.free({page}, page).error().code(), ERANGE);
}

TEST(IovaAllocator, WithoutPageSizesPagesOf4KiBAreTaken) {
  IovaAllocator allocator = allocator_of({{{1}, {64 * kib - 1}}}, 0);
  EXPECT_EQ(allocator.bytes_free(), 60 * kib);
  EXPECT_EQ(allocator.allocate(2 * kib).error().code(), EINVAL);
}

TEST(IovaAllocator, PagesOf64KiBAreKept) {
  IovaAllocator allocator = allocator_of({{{page}, {mib - 1}}}, 64 * kib | 512 * mib);
  EXPECT_EQ(allocator.allocate(page).error().code(), EINVAL);
  EXPECT_EQ(allocator.allocate(64 * kib)->value, 64 * kib);
  EXPECT_EQ(allocator.allocate_at({page}, 64 * kib).error().code(), EINVAL);
}

TEST(IovaAllocator, NothingCrossesAHoleInTheUsableRanges) {
  IovaAllocator allocator = allocator_of({{{page}, {4 * page - 1}}, {{6 * page}, {8 * page - 1}}});
  EXPECT_EQ(allocator.ranges_free(), 2U);
  EXPECT_EQ(allocator.allocate_at({3 * page}, 4 * page).error().code(), ERANGE);
  ASSERT_TRUE(allocator.allocate_at({page}, 3 * page));
  ASSERT_TRUE(allocator.allocate_at({6 * page}, 2 * page));
  EXPECT_EQ(allocator.free({page}, 7 * page).error().code(), ERANGE);
  EXPECT_EQ(allocator.bytes_free(), 0U);
}

TEST(IovaAllocator, UsableRangesThatTouchOrOverlapAreOne) {
  IovaAllocator allocator =
      allocator_of({{{4 * page}, {8 * page - 1}}, {{page}, {4 * page - 1}}, {{2 * page}, {5 * page - 1}}});
  EXPECT_EQ(allocator.ranges_free(), 1U);
  EXPECT_EQ(allocator.bytes_free(), 7 * page);
  EXPECT_TRUE(allocator.allocate_at({page}, 7 * page));
}

TEST(IovaAllocator, ASecondFreeIsRefusedAndChangesNothing) {
  IovaAllocator allocator = allocator_of({{{page}, {mib - 1}}});
  const Iova iova = *allocator.allocate(4 * page);
  ASSERT_TRUE(allocator.free(iova, 4 * page));
  const std::uint64_t before = allocator.bytes_free();
  EXPECT_EQ(allocator.free(iova, 4 * page).error().code(), ENOENT);
  const Iova again = *allocator.allocate(4 * page);
  EXPECT_EQ(allocator.free(again, 5 * page).error().code(), ENOENT);
  EXPECT_EQ(allocator.bytes_free(), before - 4 * page);
}

TEST(IovaAllocator, WhatWasAllocatedWholeMayBeFreedInParts) {
  IovaAllocator allocator = allocator_of({{{page}, {mib - 1}}});
  const Iova iova = *allocator.allocate(4 * page);
  EXPECT_TRUE(allocator.free(iova + page, page));
  EXPECT_TRUE(allocator.free(iova + 3 * page, page));
  EXPECT_TRUE(allocator.free(iova, page));
  EXPECT_TRUE(allocator.free(iova + 2 * page, page));
  EXPECT_EQ(allocator.ranges_free(), 1U);
  EXPECT_EQ(allocator.largest_free(), mib - page);
}

TEST(IovaAllocator, RefusalsNameTheRangeAndTheReason) {
  IovaAllocator allocator = allocator_of({{{page}, {mib - 1}}});
  EXPECT_NE(allocator.allocate(gib).error().message().find("1 GiB"), std::string::npos);
  EXPECT_NE(allocator.allocate_at({2 * mib}, page).error().message().find("0x1000-0xfffff"), std::string::npos);
  EXPECT_NE(allocator.free({page}, page).error().message().find("0x1000-0x1fff"), std::string::npos);
  EXPECT_EQ(allocator.free({page}, top - page + 1).error().code(), ERANGE);
  EXPECT_EQ(allocator.free({page}, 0).error().code(), EINVAL);
  EXPECT_EQ(allocator.allocate(0).error().code(), EINVAL);
}

// The live allocations, for the properties below.
struct Holder {
  std::map<std::uint64_t, std::uint64_t> live;  // first, length
  std::uint64_t bytes = 0;

  [[nodiscard]] bool overlaps(Iova iova, std::uint64_t length) const {
    const auto after = live.lower_bound(iova.value);
    if (after != live.end() && after->first - iova.value < length) return true;
    return after != live.begin() && std::prev(after)->first + std::prev(after)->second > iova.value;
  }
  void add(Iova iova, std::uint64_t length) {
    live[iova.value] = length;
    bytes += length;
  }
};

// Whether an aligned range fits into a gap between allocations, by a search of all addresses.
bool fits_somewhere(const Holder& holder, const std::vector<IovaRange>& usable, std::uint64_t length,
                    std::uint64_t alignment) {
  for (const IovaRange& range : usable) {
    for (std::uint64_t first = (range.first.value + alignment - 1) / alignment * alignment;
         first <= range.last.value && range.last.value - first >= length - 1; first += alignment) {
      if (first != 0 && !holder.overlaps({first}, length)) return true;
    }
  }
  return false;
}

RC_GTEST_PROP(IovaAllocator, AllocationsKeepEveryRuleAndAFitIsNeverMissed, ()) {
  const std::vector<IovaRange> usable{{{0}, {79 * page - 1}}, {{100 * page}, {180 * page - 1}}};
  const std::uint64_t page_sizes = page | 4 * page | 16 * page;
  IovaAllocator allocator(usable, page_sizes);
  const std::uint64_t total = allocator.bytes_free();
  Holder holder;
  const auto steps = *rc::gen::container<std::vector<std::tuple<int, std::uint64_t, std::uint64_t>>>(rc::gen::tuple(
      rc::gen::inRange(0, 10), rc::gen::inRange<std::uint64_t>(0, 180), rc::gen::inRange<std::uint64_t>(1, 24)));
  for (const auto& [kind, number, count] : steps) {
    const std::uint64_t length = count * page;
    if (kind < 5) {
      const bool own_alignment = kind == 4;
      const std::uint64_t wanted =
          own_alignment ? page << number % 6 : std::bit_floor(page_sizes & (std::bit_floor(length) * 2 - 1));
      const auto iova = own_alignment ? allocator.allocate(length, wanted) : allocator.allocate(length);
      const bool fits = fits_somewhere(holder, usable, length, wanted);
      if (iova) {
        RC_ASSERT(iova->value != 0U);
        RC_ASSERT(!holder.overlaps(*iova, length));
        RC_ASSERT(std::any_of(usable.begin(), usable.end(),
                              [&](IovaRange range) { return range.contains(*IovaRange::from_length(*iova, length)); }));
        RC_ASSERT(!fits || iova->value % wanted == 0U);
        RC_ASSERT(iova->value % page == 0U);
        holder.add(*iova, length);
      } else {
        RC_ASSERT(iova.error().code() == ENOSPC);
        RC_ASSERT(!fits_somewhere(holder, usable, length, own_alignment ? wanted : page));
      }
    } else if (kind < 6) {
      const auto range = IovaRange::from_length({number * page}, length);
      const bool is_usable = std::any_of(usable.begin(), usable.end(), [&](IovaRange r) { return r.contains(*range); });
      const auto result = allocator.allocate_at(range->first, length);
      const int expected = !is_usable ? ERANGE : holder.overlaps(range->first, length) ? EEXIST : 0;
      RC_ASSERT((result ? 0 : result.error().code()) == expected);
      if (result) holder.add(range->first, length);
    } else if (!holder.live.empty()) {
      const auto entry = std::next(holder.live.begin(), static_cast<std::ptrdiff_t>(number % holder.live.size()));
      const auto [first, whole] = *entry;
      // Frees all of it, or only its tail.
      const std::uint64_t kept = kind == 9 ? whole / page / 2 * page : 0;
      RC_ASSERT(allocator.free({first + kept}, whole - kept).has_value());
      RC_ASSERT(allocator.free({first + kept}, whole - kept).error().code() == ENOENT);
      holder.bytes -= whole - kept;
      if (kept == 0) {
        holder.live.erase(entry);
      } else {
        entry->second = kept;
      }
    }
    RC_ASSERT(allocator.bytes_free() == total - holder.bytes);
  }
  for (const auto& [first, length] : holder.live) RC_ASSERT(allocator.free({first}, length).has_value());
  RC_ASSERT(allocator.bytes_free() == total);
  RC_ASSERT(allocator.ranges_free() == 2U);
  RC_ASSERT(allocator.largest_free() == 80 * page);
}

TEST(IovaAllocator, ADrainAndARefillAtScaleEndWhereTheyBegan) {
  IovaAllocator allocator = allocator_of({{{0}, {0xfedfffff}}, {{0xfef00000}, {(1ULL << 39) - 1}}});
  const std::uint64_t bytes = allocator.bytes_free();
  const std::uint64_t largest = allocator.largest_free();
  std::mt19937_64 random(3);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::pair<Iova, std::uint64_t>> live;
    Holder holder;
    for (int i = 0; i < 150'000; ++i) {
      if (live.size() > 40'000 || (!live.empty() && random() % 3 == 0)) {
        const std::size_t which = random() % live.size();
        ASSERT_TRUE(allocator.free(live[which].first, live[which].second));
        holder.live.erase(live[which].first.value);
        live[which] = live.back();
        live.pop_back();
      } else {
        const std::uint64_t length = random() % 50 == 0 ? 2 * mib * (1 + random() % 3) : page * (1 + random() % 20);
        const auto iova = allocator.allocate(length);
        ASSERT_TRUE(iova);
        ASSERT_FALSE(holder.overlaps(*iova, length));
        ASSERT_EQ(iova->value % (length >= 2 * mib ? 2 * mib : page), 0U);
        holder.add(*iova, length);
        live.emplace_back(*iova, length);
      }
    }
    for (const auto& [iova, length] : live) ASSERT_TRUE(allocator.free(iova, length));
    EXPECT_EQ(allocator.bytes_free(), bytes);
    EXPECT_EQ(allocator.ranges_free(), 2U);
    EXPECT_EQ(allocator.largest_free(), largest);
  }
}

}  // namespace iova_allocator_test
}  // namespace postern
