// SPDX-License-Identifier: Apache-2.0
// SizeBins: free ranges by size, to find one of a given size quickly.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "memory/iova_tree.hpp"

namespace postern::memory {

struct FreeRange : Ranged {
  FreeRange* next = nullptr;  // in its bin, circular
  FreeRange* previous = nullptr;
};

// One bin for each size below 16 pages, and 16 bins for each doubling above. Does not own the ranges.
class SizeBins {
 public:
  static constexpr std::size_t none = std::size_t{61} * 16;  // the number of bins; as an index: no bin

  // Returns the bin for ranges of this many pages, 1 or more.
  [[nodiscard]] static std::size_t bin_of(std::uint64_t pages) {
    if (pages < 16) return pages;
    const auto doublings = static_cast<std::size_t>(std::bit_width(pages)) - 4;
    return doublings * 16 + ((pages >> (doublings - 1)) & 15);
  }
  // Returns the lowest bin whose ranges all have at least this many pages.
  [[nodiscard]] static std::size_t bin_of_at_least(std::uint64_t pages) {
    return pages == 1 ? 1 : bin_of(pages - 1) + 1;
  }

  [[nodiscard]] FreeRange* first(std::size_t bin) const { return firsts_[bin]; }
  // Returns the lowest non-empty bin from this one on, or none.
  [[nodiscard]] std::size_t filled_from(std::size_t bin) const {
    if (bin >= none) return none;
    std::size_t word = bin / 64;
    const std::uint64_t here = filled_[word] & (~std::uint64_t{0} << (bin % 64));
    if (here != 0) return word * 64 + static_cast<unsigned>(std::countr_zero(here));
    const std::uint32_t words = filled_words_ & (~std::uint32_t{1} << word);
    if (words == 0) return none;
    word = static_cast<unsigned>(std::countr_zero(words));
    return word * 64 + static_cast<unsigned>(std::countr_zero(filled_[word]));
  }
  [[nodiscard]] std::size_t highest_filled() const {  // or none
    if (filled_words_ == 0) return none;
    const std::size_t word = static_cast<unsigned>(std::bit_width(filled_words_)) - 1;
    return word * 64 + static_cast<unsigned>(std::bit_width(filled_[word])) - 1;
  }

  enum class End : std::uint8_t { front, back };
  void add(std::size_t bin, FreeRange& range, End end) noexcept {
    FreeRange*& first = firsts_[bin];
    if (first == nullptr) {
      range.next = range.previous = first = &range;
      filled_[bin / 64] |= std::uint64_t{1} << (bin % 64);
      filled_words_ |= std::uint32_t{1} << (bin / 64);
      return;
    }
    range.next = first;
    range.previous = first->previous;
    range.previous->next = first->previous = &range;
    if (end == End::front) first = &range;
  }
  void remove(std::size_t bin, FreeRange& range) noexcept {
    FreeRange*& first = firsts_[bin];
    if (range.next == &range) {
      first = nullptr;
      filled_[bin / 64] &= ~(std::uint64_t{1} << (bin % 64));
      if (filled_[bin / 64] == 0) filled_words_ &= ~(std::uint32_t{1} << (bin / 64));
      return;
    }
    range.previous->next = range.next;
    range.next->previous = range.previous;
    if (first == &range) first = range.next;
  }

 private:
  std::array<FreeRange*, none> firsts_{};
  std::array<std::uint64_t, (none + 63) / 64> filled_{};
  std::uint32_t filled_words_ = 0;
};

}  // namespace postern::memory
