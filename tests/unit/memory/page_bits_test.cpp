// SPDX-License-Identifier: Apache-2.0
#include "memory/page_bits.hpp"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <set>

#include "memory/page_set.hpp"

namespace postern::memory {
namespace page_bits_test {

constexpr std::uint64_t bits = 1300;  // 20 words and some bits: two blocks and a rest
using Words = std::vector<std::uint64_t>;
using Set = std::set<std::uint64_t>;

Words words_of(const Set& set) {
  Words words(words_for(bits));
  for (const std::uint64_t bit : set) words[bit / 64] |= std::uint64_t{1} << bit % 64;
  return words;
}
Set set_of(const Words& words) {
  Set set;
  for (std::uint64_t bit = 0; bit < words.size() * 64; ++bit) {
    if ((words[bit / 64] >> bit % 64 & 1) != 0) set.insert(bit);
  }
  return set;
}
Set any_set() { return *rc::gen::container<Set>(rc::gen::inRange<std::uint64_t>(0, bits)); }
std::uint64_t any(std::uint64_t below) { return *rc::gen::inRange<std::uint64_t>(0, below); }

RC_GTEST_PROP(PageBits, SetsAndClearsWhatItIsTold, ()) {
  Set set = any_set();
  Words words = words_of(set);
  const std::uint64_t first = any(bits);
  const std::uint64_t count = any(bits - first + 1);
  const bool sets = any(2) == 1;
  (sets ? set_bits : clear_bits)(words.data(), first, count);
  for (std::uint64_t bit = first; bit < first + count; ++bit) {
    if (sets) {
      set.insert(bit);
    } else {
      set.erase(bit);
    }
  }
  RC_ASSERT(set_of(words) == set);
}

RC_GTEST_PROP(PageBits, FindsTheNextOne, ()) {
  const Set set = any_set();
  const Words words = words_of(set);
  const std::uint64_t first = any(bits);
  const std::uint64_t end = first + any(bits - first + 1);
  const auto next = set.lower_bound(first);
  RC_ASSERT(find_bit(words.data(), first, end) == (next != set.end() && *next < end ? *next : end));
}

RC_GTEST_PROP(PageBits, MergesFromAnyBitToAnyBit, ()) {
  Set to = any_set();
  const Set from = any_set();
  Words words = words_of(to);
  const Words source = words_of(from);
  const bool aligned = any(2) == 1;
  const std::uint64_t from_bit = any(bits) & (aligned ? ~63ULL : ~0ULL);
  const std::uint64_t to_bit = any(bits) & (aligned ? ~63ULL : ~0ULL);
  const std::uint64_t count = any(bits - std::max(from_bit, to_bit) + 1);
  merge_bits({words.data(), to_bit}, {source.data(), from_bit}, count);
  for (const std::uint64_t bit : from) {
    if (bit >= from_bit && bit < from_bit + count) to.insert(bit - from_bit + to_bit);
  }
  RC_ASSERT(set_of(words) == to);
}

RC_GTEST_PROP(PageBits, FoldsSmallPagesIntoLargeOnes, ()) {
  const Set from = any_set();
  const Words source = words_of(from);
  const auto shift = static_cast<unsigned>(any(8));
  const std::uint64_t from_bit = any(bits);
  const std::uint64_t to_bit = any(bits);
  const std::uint64_t count = any(bits - std::max(from_bit, to_bit) + 1);
  Words words(words_for(bits));
  fold_bits({words.data(), to_bit}, {source.data(), from_bit}, count, shift);
  Set expected;
  for (const std::uint64_t bit : from) {
    if (bit >= from_bit && bit < from_bit + count) expected.insert((bit - from_bit + to_bit) >> shift);
  }
  RC_ASSERT(set_of(words) == expected);
}

// Compares a PageSet with a std::set, across the boundary between two chunks.
RC_GTEST_PROP(PageSet, KeepsWhatIsAddedUntilItIsRemoved, ()) {
  constexpr std::uint64_t page = 4096;
  constexpr std::uint64_t base = (std::uint64_t{1} << 40) - 150 * page;
  PageSet pages(page);
  Set model;
  for (int step = 0; step < 20; ++step) {
    const std::uint64_t first = any(bits);
    const std::uint64_t count = 1 + any(bits - first);
    const IovaRange range{{base + first * page}, {base + (first + count) * page - 1}};
    const Set some = any_set();
    const Words words = words_of(some);
    switch (any(3)) {
      case 0:
        pages.add(range);
        for (std::uint64_t bit = first; bit < first + count; ++bit) model.insert(bit);
        break;
      case 1:
        pages.add(range, words.data());
        for (const std::uint64_t bit : some) {
          if (bit < count) model.insert(first + bit);
        }
        break;
      default:
        pages.remove(range);
        for (std::uint64_t bit = first; bit < first + count; ++bit) model.erase(bit);
        break;
    }
  }
  Words all(words_for(bits));
  pages.mark({{base}, {base + bits * page - 1}}, all.data());
  RC_ASSERT(set_of(all) == model);
  RC_ASSERT(pages.empty() == model.empty());
}

}  // namespace page_bits_test
}  // namespace postern::memory
