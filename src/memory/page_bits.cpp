// SPDX-License-Identifier: Apache-2.0
// Bits for pages: sets, finds and merges them, one word at a time.
#include "memory/page_bits.hpp"

#include <algorithm>
#include <bit>

namespace postern::memory {
namespace {

// Returns a mask of the lowest `count` bits, 1 to 64.
constexpr std::uint64_t low_bits(std::uint64_t count) { return ~std::uint64_t{0} >> (word_bits - count); }

// Calls visit(word index, mask) for the words that contain the bits.
template <typename Visit>
void for_each_word(std::uint64_t first, std::uint64_t count, Visit visit) {
  const std::uint64_t end = first + count;
  while (first < end) {
    const std::uint64_t in_word = first % word_bits;
    const std::uint64_t here = std::min(word_bits - in_word, end - first);
    visit(first / word_bits, low_bits(here) << in_word);
    first += here;
  }
}

std::uint64_t read_bits(BitPlace<const std::uint64_t> from, std::uint64_t count) {
  const std::uint64_t* word = from.words + from.bit / word_bits;
  const std::uint64_t in_word = from.bit % word_bits;
  std::uint64_t bits = *word >> in_word;
  if (in_word + count > word_bits) bits |= word[1] << (word_bits - in_word);
  return bits & low_bits(count);
}

void or_bits(BitPlace<std::uint64_t> to, std::uint64_t bits, std::uint64_t count) {
  std::uint64_t* word = to.words + to.bit / word_bits;
  const std::uint64_t in_word = to.bit % word_bits;
  *word |= bits << in_word;
  if (in_word + count > word_bits) word[1] |= bits >> (word_bits - in_word);
}

// Words at a time, in blocks of which a compiler makes vector instructions.
constexpr std::uint64_t block = 8;

void merge_words(std::uint64_t* __restrict to, const std::uint64_t* __restrict from, std::uint64_t count) {
  for (; count >= block; count -= block, to += block, from += block) {
    for (std::uint64_t i = 0; i < block; ++i) to[i] |= from[i];
  }
  for (std::uint64_t i = 0; i < count; ++i) to[i] |= from[i];
}

// The same, from the bit `shift`, 1 to 63, of the first word on.
void merge_shifted_words(std::uint64_t* __restrict to, const std::uint64_t* __restrict from, std::uint64_t count,
                         std::uint64_t shift) {
  const std::uint64_t rest = word_bits - shift;
  for (; count >= block; count -= block, to += block, from += block) {
    for (std::uint64_t i = 0; i < block; ++i) to[i] |= from[i] >> shift | from[i + 1] << rest;
  }
  for (std::uint64_t i = 0; i < count; ++i) to[i] |= from[i] >> shift | from[i + 1] << rest;
}

}  // namespace

void set_bits(std::uint64_t* words, std::uint64_t first, std::uint64_t count) {
  for_each_word(first, count, [words](std::uint64_t word, std::uint64_t mask) { words[word] |= mask; });
}

void clear_bits(std::uint64_t* words, std::uint64_t first, std::uint64_t count) {
  for_each_word(first, count, [words](std::uint64_t word, std::uint64_t mask) { words[word] &= ~mask; });
}

std::uint64_t find_bit(const std::uint64_t* words, std::uint64_t first, std::uint64_t end) {
  while (first < end) {
    const std::uint64_t bits = words[first / word_bits] >> first % word_bits;
    if (bits != 0) return std::min(end, first + static_cast<std::uint64_t>(std::countr_zero(bits)));
    first = (first / word_bits + 1) * word_bits;
  }
  return end;
}

void merge_bits(BitPlace<std::uint64_t> to, BitPlace<const std::uint64_t> from, std::uint64_t count) {
  const auto merge_few = [&](std::uint64_t few) {
    if (few == 0) return;
    or_bits(to, read_bits(from, few), few);
    to.bit += few;
    from.bit += few;
    count -= few;
  };
  // Up to the first whole word of `to`; the whole words; the rest.
  merge_few(std::min(count, (word_bits - to.bit % word_bits) % word_bits));
  const std::uint64_t whole = count / word_bits;
  std::uint64_t* const target = to.words + to.bit / word_bits;
  const std::uint64_t* const source = from.words + from.bit / word_bits;
  if (const std::uint64_t shift = from.bit % word_bits; shift == 0) {
    merge_words(target, source, whole);
  } else {
    merge_shifted_words(target, source, whole, shift);
  }
  to.bit += whole * word_bits;
  from.bit += whole * word_bits;
  merge_few(count % word_bits);
}

void fold_bits(BitPlace<std::uint64_t> to, BitPlace<const std::uint64_t> from, std::uint64_t count, unsigned shift) {
  if (shift == 0) return merge_bits(to, from, count);
  const std::uint64_t end = from.bit + count;
  for (std::uint64_t bit = from.bit; (bit = find_bit(from.words, bit, end)) < end;) {
    const std::uint64_t page = (to.bit + (bit - from.bit)) >> shift;
    to.words[page / word_bits] |= std::uint64_t{1} << page % word_bits;
    bit = from.bit + (((page + 1) << shift) - to.bit);  // the next page's first
  }
}

}  // namespace postern::memory
