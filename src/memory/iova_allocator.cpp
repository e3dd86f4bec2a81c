// SPDX-License-Identifier: Apache-2.0
// IovaAllocator: keeps the free ranges by address in an IovaTree, and by size in SizeBins.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>
#include <optional>
#include <postern/iova_allocator.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/remedy.hpp"
#include "base/words.hpp"
#include "memory/iova_tree.hpp"
#include "memory/size_bins.hpp"
#include "memory/slab.hpp"

namespace postern {

using namespace memory;

namespace {

constexpr std::uint64_t highest = std::numeric_limits<std::uint64_t>::max();

// No IOMMU has smaller pages. The tree cannot hold the iova 2^64-1, which is then never the start of a page.
constexpr std::uint64_t least_page = 4096;

// How many free ranges, which may be too small or badly aligned, are tried before a bigger one is split.
constexpr int tries_before_cutting = 16;

// Returns the usable ranges, sorted, in whole pages, with overlapping and adjacent ones joined.
std::vector<IovaRange> whole_pages(std::span<const IovaRange> usable, std::uint64_t page) {
  std::vector<IovaRange> ranges;
  for (const IovaRange& range : usable) {
    const std::uint64_t first = (range.first.value + page - 1) & ~(page - 1);
    const std::uint64_t end = (range.last.value + 1) & ~(page - 1);  // 0 for 2^64
    if (first < range.first.value || (range.last.value + 1 != 0 && end <= first)) continue;
    ranges.push_back({{first}, {end - 1}});
  }
  std::sort(ranges.begin(), ranges.end(), [](IovaRange a, IovaRange b) { return a.first < b.first; });
  std::vector<IovaRange> merged;
  for (const IovaRange& range : ranges) {
    if (!merged.empty() && (merged.back().last.value == highest || range.first <= merged.back().last + 1)) {
      merged.back().last = std::max(merged.back().last, range.last);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

}  // namespace

class IovaAllocator::State {
 public:
  State(std::span<const IovaRange> usable, std::uint64_t page_sizes)
      : page_sizes_(page_sizes < least_page ? least_page : page_sizes & ~(least_page - 1)),
        page_shift_(std::countr_zero(page_sizes_)),
        usable_(whole_pages(usable, page())) {
    for (const IovaRange& range : usable_) {
      add(range, tree_.place_of(range.first.value));
      bytes_free_ += range.length();
    }
  }

  [[nodiscard]] std::optional<Iova> allocate(std::uint64_t length);
  [[nodiscard]] std::optional<Iova> allocate(std::uint64_t length, std::uint64_t alignment);
  [[nodiscard]] bool allocate_at(IovaRange range);
  [[nodiscard]] bool free(IovaRange range);

  [[nodiscard]] std::uint64_t page() const { return std::uint64_t{1} << page_shift_; }
  [[nodiscard]] bool is_pages_or_0(std::uint64_t bytes) const { return (bytes & (page() - 1)) == 0; }
  [[nodiscard]] bool is_pages(std::uint64_t bytes) const { return bytes != 0 && is_pages_or_0(bytes); }
  // Returns the range if it consists of whole usable pages.
  [[nodiscard]] std::optional<IovaRange> usable(Iova iova, std::uint64_t length) {
    if (!is_pages(length) || !is_pages_or_0(iova.value)) return std::nullopt;
    const auto range = IovaRange::from_length(iova, length);
    return range && is_usable(*range) ? range : std::nullopt;
  }
  [[nodiscard, gnu::cold]] tl::unexpected<Error> refused_allocate(std::uint64_t length, std::uint64_t alignment) const;
  [[nodiscard, gnu::cold]] tl::unexpected<Error> refused_range(const char* operation, Iova iova, std::uint64_t length,
                                                               int code, const char* reason, RemedyCode remedy);
  [[nodiscard]] std::uint64_t bytes_free() const { return bytes_free_; }
  [[nodiscard]] std::uint64_t ranges_free() const { return ranges_.live(); }
  [[nodiscard]] std::uint64_t largest_free() const;

 private:
  [[nodiscard]] bool is_usable(IovaRange range);
  struct Fit {
    FreeRange* range;
    Iova first;
  };

  [[nodiscard]] std::size_t bin_of(IovaRange range) const;
  [[nodiscard]] SizeBins::End end_of(IovaRange range) const;
  [[nodiscard]] std::optional<Iova> place_in(IovaRange range, std::uint64_t span, std::uint64_t alignment) const;
  [[nodiscard]] std::optional<Fit> fit(std::uint64_t length, std::uint64_t alignment);

  void add(IovaRange range, IovaTree::Place place);
  void remove(FreeRange& range) noexcept;
  void resized(FreeRange& range, IovaRange before) noexcept;
  void take(FreeRange& from, IovaRange range);
  void note_hope(IovaRange range) noexcept;

  std::uint64_t page_sizes_;
  int page_shift_;
  std::vector<IovaRange> usable_;
  IovaRange recent_{{1}, {0}};  // the usable range of the last query; empty at first
  std::uint64_t bytes_free_ = 0;
  IovaTree tree_;
  SizeBins bins_;
  memory::Slab<FreeRange> ranges_;
  // For each alignment (by its binary logarithm), the shortest length known to fit in no free range. Avoids repeating
  // the linear search; valid until such a range is freed.
  std::array<std::uint64_t, 64> hopeless_{};
  std::uint64_t hopeless_alignments_ = 0;
};

inline std::size_t IovaAllocator::State::bin_of(IovaRange range) const {
  return SizeBins::bin_of(((range.last - range.first) >> page_shift_) + 1);
}

// Ranges that are aligned to their own size, as huge pages need it, come first in their bin.
SizeBins::End IovaAllocator::State::end_of(IovaRange range) const {
  const std::uint64_t length = range.length() == 0 ? highest : range.length();
  const std::uint64_t fitting = page_sizes_ & (highest >> std::countl_zero(length));
  const std::uint64_t largest = std::bit_floor(fitting);
  return (range.first.value & (largest - 1)) == 0 ? SizeBins::End::front : SizeBins::End::back;
}

// Returns the lowest iova in a free range for span + 1 bytes. Never 0.
inline std::optional<Iova> IovaAllocator::State::place_in(IovaRange range, std::uint64_t span,
                                                          std::uint64_t alignment) const {
  const std::uint64_t lowest = range.first.value == 0 ? page() : range.first.value;
  const std::uint64_t first = (lowest + alignment - 1) & ~(alignment - 1);
  if (first < lowest || first > range.last.value || range.last.value - first < span) return std::nullopt;
  return Iova{first};
}

inline std::optional<IovaAllocator::State::Fit> IovaAllocator::State::fit(std::uint64_t length,
                                                                          std::uint64_t alignment) {
  const auto level = static_cast<unsigned>(std::countr_zero(alignment));
  if ((hopeless_alignments_ >> level & 1) != 0 && length >= hopeless_[level]) return std::nullopt;

  const std::uint64_t pages = length >> page_shift_;
  const std::uint64_t slack = alignment >> page_shift_;  // with this many extra pages, less one, any alignment fits
  const std::size_t smallest = SizeBins::bin_of(pages);
  const std::size_t certain = pages > highest - slack ? SizeBins::none : SizeBins::bin_of_at_least(pages + slack - 1);

  int tries = tries_before_cutting;
  std::size_t bin = bins_.filled_from(smallest);
  for (; bin < certain && tries > 0; bin = bins_.filled_from(bin + 1)) {
    FreeRange* range = bins_.first(bin);
    do {
      if (const auto first = place_in(range->range, length - 1, alignment)) return Fit{range, *first};
      range = range->next;
    } while (range != bins_.first(bin) && --tries > 0);
  }
  // The first range here fits, unless it starts at 0.
  if (bin < certain) bin = bins_.filled_from(certain);
  for (; bin < SizeBins::none; bin = bins_.filled_from(bin + 1)) {
    for (FreeRange* range : {bins_.first(bin), bins_.first(bin)->next}) {
      if (const auto first = place_in(range->range, length - 1, alignment)) return Fit{range, *first};
    }
  }
  // No bigger range is left: tries the ranges skipped above.
  for (bin = bins_.filled_from(smallest); tries <= 0 && bin < certain; bin = bins_.filled_from(bin + 1)) {
    FreeRange* range = bins_.first(bin);
    do {
      if (const auto first = place_in(range->range, length - 1, alignment)) return Fit{range, *first};
      range = range->next;
    } while (range != bins_.first(bin));
  }
  hopeless_alignments_ |= std::uint64_t{1} << level;
  hopeless_[level] = length;
  return std::nullopt;
}

// A range was freed or has grown: lengths that did not fit may fit now.
void IovaAllocator::State::note_hope(IovaRange range) noexcept {
  for (std::uint64_t rest = hopeless_alignments_; rest != 0; rest &= rest - 1) {
    const auto level = static_cast<unsigned>(std::countr_zero(rest));
    const std::uint64_t alignment = std::uint64_t{1} << level;
    if (place_in(range, hopeless_[level] - 1, alignment)) hopeless_alignments_ &= ~alignment;
  }
}

std::optional<Iova> IovaAllocator::State::allocate(std::uint64_t length) {
  std::uint64_t alignments = page_sizes_ & (highest >> std::countl_zero(length));
  for (; alignments != 0; alignments &= ~std::bit_floor(alignments)) {
    if (const auto iova = allocate(length, std::bit_floor(alignments))) return iova;
  }
  return std::nullopt;
}

std::optional<Iova> IovaAllocator::State::allocate(std::uint64_t length, std::uint64_t alignment) {
  const auto found = fit(length, std::max(alignment, page()));
  if (!found) return std::nullopt;
  take(*found->range, {found->first, found->first + (length - 1)});
  return found->first;
}

bool IovaAllocator::State::allocate_at(IovaRange range) {
  auto* const around = static_cast<FreeRange*>(tree_.at_or_below(range.first));
  if (around == nullptr || !around->range.contains(range)) return false;
  take(*around, range);
  return true;
}

// In each case, all allocations come first.
inline void IovaAllocator::State::take(FreeRange& from, IovaRange range) {
  const IovaRange before = from.range;
  if (before.first == range.first && before.last == range.last) {
    static_cast<void>(tree_.erase(before));
    remove(from);
  } else if (before.first == range.first) {
    tree_.move(from, range.last + 1);
    resized(from, before);
  } else {
    if (before.last != range.last) {
      const IovaRange rest{range.last + 1, before.last};
      add(rest, tree_.place_of(rest.first.value));
    }
    from.range.last = range.first - 1;
    resized(from, before);
  }
  bytes_free_ -= range.length();
}

bool IovaAllocator::State::free(IovaRange range) {
  const IovaTree::Place place = tree_.place_of(range.first.value);
  if (tree_.overlapping(place, range) != nullptr) return false;
  auto* below = static_cast<FreeRange*>(tree_.below(place));
  auto* above = tree_.may_begin_by(place, range.last + 1) ? static_cast<FreeRange*>(tree_.above(place)) : nullptr;
  if (below != nullptr && below->range.last + 1 != range.first) below = nullptr;
  if (above != nullptr && range.last + 1 != above->range.first) above = nullptr;

  IovaRange joined = range;
  if (below != nullptr) {
    const IovaRange before = below->range;
    joined = {before.first, range.last};
    if (above != nullptr) {
      joined.last = above->range.last;
      static_cast<void>(tree_.erase(above->range));
      remove(*above);
    }
    below->range.last = joined.last;
    resized(*below, before);
  } else if (above != nullptr) {
    const IovaRange before = above->range;
    joined.last = before.last;
    tree_.move(*above, range.first);
    resized(*above, before);
  } else {
    add(range, place);
  }
  if (hopeless_alignments_ != 0) [[unlikely]]
    note_hope(joined);
  bytes_free_ += range.length();
  return true;
}

void IovaAllocator::State::add(IovaRange range, IovaTree::Place place) {
  FreeRange* const added = ranges_.take({{range}});
  try {
    tree_.insert(place, *added);
  } catch (...) {
    ranges_.give_back(added);
    throw;
  }
  bins_.add(bin_of(range), *added, end_of(range));
}

// Removes it from its bin and frees it; it has already left the tree.
void IovaAllocator::State::remove(FreeRange& range) noexcept {
  bins_.remove(bin_of(range.range), range);
  ranges_.give_back(&range);
  if (ranges_.is_sparse()) ranges_.trim();
}

void IovaAllocator::State::resized(FreeRange& range, IovaRange before) noexcept {
  const std::size_t old_bin = bin_of(before);
  const std::size_t bin = bin_of(range.range);
  if (bin == old_bin) return;
  bins_.remove(old_bin, range);
  bins_.add(bin, range, end_of(range.range));
}

bool IovaAllocator::State::is_usable(IovaRange range) {
  if (recent_.contains(range)) [[likely]]
    return true;
  const auto after = std::upper_bound(usable_.begin(), usable_.end(), range.first,
                                      [](Iova iova, const IovaRange& usable) { return iova < usable.first; });
  if (after == usable_.begin() || !std::prev(after)->contains(range)) return false;
  recent_ = *std::prev(after);
  return true;
}

std::uint64_t IovaAllocator::State::largest_free() const {
  const std::size_t bin = bins_.highest_filled();
  if (bin == SizeBins::none) return 0;
  std::uint64_t span = 0;
  const FreeRange* range = bins_.first(bin);
  do {
    span = std::max(span, range->range.last - range->range.first);
    range = range->next;
  } while (range != bins_.first(bin));
  return span + 1;
}

namespace {

tl::unexpected<Error> refused(int code, std::string object, std::string reason, Remedies remedy = {}) {
  return failure({.code = code, .object = std::move(object), .reason = std::move(reason), .remedy = std::move(remedy)});
}

tl::unexpected<Error> not_pages(std::string object, std::uint64_t page) {
  return refused(EINVAL, std::move(object), "the IOMMU maps whole pages of " + size_text(page) + ", one or more",
                 remedy<RemedyCode::use_page_multiples>(size_text(page)));
}

}  // namespace

// These find out afterwards what was wrong, to keep the success path short.
tl::unexpected<Error> IovaAllocator::State::refused_allocate(std::uint64_t length, std::uint64_t alignment) const {
  std::string object = "allocate " + size_text(length) + " of iovas";
  if (alignment != page()) object += ", aligned to " + size_text(alignment);
  if (!is_pages(length)) return not_pages(std::move(object), page());
  if (!std::has_single_bit(alignment)) return refused(EINVAL, std::move(object), "the alignment is not a power of two");
  std::string reason = "the longest free range has " + size_text(largest_free()) + ", and " + size_text(bytes_free_) +
                       " are free in " + std::to_string(ranges_.live()) + (ranges_.live() == 1 ? " range" : " ranges");
  if (length <= largest_free())
    reason += alignment <= page() ? "; iova 0, where it starts, is never chosen"
                                  : "; none has that much after a suitably aligned iova other than 0";
  return refused(ENOSPC, std::move(object), std::move(reason), RemedyCode::free_iovas);
}

tl::unexpected<Error> IovaAllocator::State::refused_range(const char* operation, Iova iova, std::uint64_t length,
                                                          int code, const char* reason, RemedyCode remedy) {
  const auto range = IovaRange::from_length(iova, length);
  std::string object =
      std::string(operation) + " iova " + (range ? to_string(*range) : to_string(iova) + "+" + size_text(length));
  if (!is_pages(length) || !is_pages_or_0(iova.value)) return not_pages(std::move(object), page());
  if (!range) {
    return refused(EOVERFLOW, std::move(object), "it runs past the last address, 2^64-1");
  }
  if (!is_usable(*range)) {
    return refused(ERANGE, std::move(object), "the usable iovas are " + ranges_text(usable_),
                   RemedyCode::stay_in_usable_range);
  }
  return refused(code, std::move(object), reason, remedy);
}

IovaAllocator::IovaAllocator(std::span<const IovaRange> usable, std::uint64_t page_sizes)
    : state_(std::make_unique<State>(usable, page_sizes)) {}
IovaAllocator::~IovaAllocator() = default;
IovaAllocator::IovaAllocator(IovaAllocator&&) noexcept = default;
IovaAllocator& IovaAllocator::operator=(IovaAllocator&&) noexcept = default;

Result<Iova> IovaAllocator::allocate(std::uint64_t length) {
  if (state_->is_pages(length)) [[likely]] {
    if (const auto iova = state_->allocate(length)) [[likely]]
      return *iova;
  }
  return state_->refused_allocate(length, state_->page());
}

Result<Iova> IovaAllocator::allocate(std::uint64_t length, std::uint64_t alignment) {
  if (state_->is_pages(length) && std::has_single_bit(alignment)) [[likely]] {
    if (const auto iova = state_->allocate(length, alignment)) [[likely]]
      return *iova;
  }
  return state_->refused_allocate(length, alignment);
}

Result<void> IovaAllocator::allocate_at(Iova iova, std::uint64_t length) {
  if (const auto range = state_->usable(iova, length); range && state_->allocate_at(*range)) [[likely]]
    return {};
  return state_->refused_range("allocate", iova, length, EEXIST, "part of it is not free",
                               RemedyCode::let_allocator_choose);
}

Result<void> IovaAllocator::free(Iova iova, std::uint64_t length) {
  if (const auto range = state_->usable(iova, length); range && state_->free(*range)) [[likely]]
    return {};
  return state_->refused_range("free", iova, length, ENOENT, "part of it is already free", RemedyCode::free_once);
}

std::uint64_t IovaAllocator::bytes_free() const noexcept { return state_->bytes_free(); }
std::uint64_t IovaAllocator::ranges_free() const noexcept { return state_->ranges_free(); }
std::uint64_t IovaAllocator::largest_free() const noexcept { return state_->largest_free(); }

}  // namespace postern
