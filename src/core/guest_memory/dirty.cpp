// SPDX-License-Identifier: Apache-2.0
// Dirty pages of a guest: what the trackers of all containers report, and what was written to memory unmapped since.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <new>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "core/guest_memory/impl.hpp"
#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"
#include "memory/page_bits.hpp"

namespace postern {
namespace {

constexpr std::uint64_t page = 4096;  // of the pages that are kept here

tl::unexpected<Error> refuse_query(IovaRange range, std::string reason, const Remedies& remedy = {}) {
  return refusal({.result = -EINVAL,
                  .object = fmt::format("query dirty pages of guest memory {}", to_string(range)),
                  .reason = std::move(reason),
                  .remedy = remedy});
}

Result<void> check_query(IovaRange range, const DirtyBitmap& bitmap) {
  const std::uint64_t length = range.length();
  if (!std::has_single_bit(bitmap.page_size) || bitmap.page_size < page)
    return refuse_query(range, fmt::format("the bitmap's page size must be a power of two of at least {}", page));
  if (range.last < range.first) return refuse_query(range, inverted_text(range));
  if (length == 0) return refuse_query(range, "it has 2^64 bytes, for which there is no bitmap: query parts of it");
  if (((range.first.value | length) & (bitmap.page_size - 1)) != 0) {
    return refuse_query(
        range, fmt::format("it must begin and end at a multiple of {:#x}; {}", bitmap.page_size, length_text(range)));
  }
  if (const auto words = DirtyBitmap::words_for(length, bitmap.page_size); bitmap.words.size() < words)
    return refuse_query(range, fmt::format("the bitmap has {} words, and needs {}", bitmap.words.size(), words));
  return {};
}

}  // namespace

std::uint64_t* GuestMemory::Impl::cleared_words(std::uint64_t count) {
  scratch_.assign(count, 0);
  return scratch_.data();
}

Result<void> GuestMemory::Impl::start_tracking_in(Container& container) {
  auto* const tracker = POSTERN_TRY(container.require<DirtyTracker>());
  return tracker->start();
}

Result<void> GuestMemory::Impl::start_tracking() {
  if (dirty_) {
    return refusal({.result = -EBUSY,
                    .object = "start dirty tracking of guest memory",
                    .reason = "it is started already",
                    .remedy = RemedyCode::stop_tracking});
  }
  POSTERN_TRY(close_unused());
  std::size_t started = 0;
  const auto undo = [&] {
    for (std::size_t i = 0; i < started; ++i)
      log_failure_of([&] { return containers_[i]->get<DirtyTracker>()->stop(); });
  };
  const OnThrow on_throw(undo);
  for (; started < containers_.size(); ++started) {
    if (auto done = start_tracking_in(*containers_[started]); !done) {
      undo();
      return done;
    }
  }
  dirty_.emplace(page);
  all_dirty_ = false;
  return {};
}

Result<void> GuestMemory::Impl::stop_tracking() {
  if (!dirty_) {
    return refusal({.result = -EINVAL,
                    .object = "stop dirty tracking of guest memory",
                    .reason = "it was not started",
                    .remedy = RemedyCode::start_tracking});
  }
  Result<void> stopped;
  for (const auto& container : containers_) {
    auto done = container->get<DirtyTracker>()->stop();
    if (stopped) stopped = std::move(done);
  }
  dirty_.reset();
  return stopped;
}

Result<void> GuestMemory::Impl::unmap_tracked(Container& container, IovaRange range) {
  const std::uint64_t size = container.space().smallest_page();
  const std::uint64_t words = DirtyBitmap::words_for(range.length(), size);
  const OnThrow on_throw([&] { all_dirty_ = true; });
  const DirtyBitmap bitmap{.page_size = size, .words = {cleared_words(words), words}};
  POSTERN_TRY(container.get<DirtyTracker>()->unmap(range.first, range.length(), bitmap));
  if (size == page) {
    dirty_->add(range, scratch_.data());
  } else {
    for (std::uint64_t i = 0; i < range.length() / size; ++i) {
      const Iova first = range.first + i * size;
      if ((scratch_[i / 64] >> (i % 64) & 1) != 0) dirty_->add({first, first + (size - 1)});
    }
  }
  return {};
}

// Before a container is closed. Its devices are gone, and its tracker has what they wrote.
void GuestMemory::Impl::keep_dirty_pages(Container& container) {
  for (const auto& [first, piece] : layout_.pieces()) {
    const std::uint64_t size = container.space().smallest_page();
    const std::uint64_t words = DirtyBitmap::words_for(piece.range.length(), size);
    const DirtyBitmap bitmap{.page_size = size, .words = {cleared_words(words), words}};
    if (!container.find(first)) continue;
    const auto answer = container.get<DirtyTracker>()->query(piece.range, bitmap);
    if (answer && size == page) {
      dirty_->add(piece.range, scratch_.data());
    } else {
      dirty_->add(piece.range);
    }
  }
}

// Of a part of the range, into the range's bitmap.
Result<DirtyAnswer> GuestMemory::Impl::query_container(Container& container, IovaRange part, IovaRange range,
                                                       const DirtyBitmap& bitmap, AfterQuery after) {
  DirtyTracker& tracker = *container.get<DirtyTracker>();
  const std::uint64_t size = container.space().smallest_page();
  const std::uint64_t first = (part.first - range.first) / size;
  if (size == bitmap.page_size && first % memory::word_bits == 0) {
    return tracker.query(part, {.page_size = size, .words = bitmap.words.subspan(first / memory::word_bits)}, after);
  }
  if (size > bitmap.page_size) return tracker.query(part, bitmap, after);  // which says that it is too small
  const std::uint64_t words = DirtyBitmap::words_for(part.length(), size);
  auto answer = POSTERN_TRY(tracker.query(part, {.page_size = size, .words = {cleared_words(words), words}}, after));
  memory::fold_bits({bitmap.words.data(), first}, {scratch_.data(), 0}, part.length() / size,
                    static_cast<unsigned>(std::countr_zero(bitmap.page_size / size)));
  return answer;
}

Result<DirtyAnswer> GuestMemory::Impl::query_all(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after) {
  DirtyAnswer answer = DirtyAnswer::pages;
  const auto& pieces = layout_.pieces();
  for (auto piece = guest_memory::at_or_above(pieces, range.first);
       piece != pieces.end() && piece->second.range.overlaps(range); ++piece) {
    const IovaRange whole = piece->second.range;
    const IovaRange part{std::max(whole.first, range.first), std::min(whole.last, range.last)};
    for (const auto& container : containers_) {
      if (!container->find(whole.first)) continue;  // not mapped: a dma-buf that is revoked, or a step that is owed
      const auto from = POSTERN_TRY(query_container(*container, part, range, bitmap, after));
      if (from == DirtyAnswer::everything) answer = from;
    }
  }
  return answer;
}

Result<DirtyAnswer> GuestMemory::Impl::query_dirty(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after) {
  if (!dirty_) return refuse_query(range, "tracking was not started", RemedyCode::start_tracking);
  POSTERN_TRY(check_query(range, bitmap));
  const auto keep_all = [&] {
    try {
      dirty_->add(range);
    } catch (const std::bad_alloc&) {
      all_dirty_ = true;
    }
  };
  const OnThrow on_throw(keep_all);
  auto answer = query_all(range, bitmap, after);
  if (!answer) {
    keep_all();
    return answer;
  }
  const std::uint64_t pages = range.length() / bitmap.page_size;
  if (all_dirty_) {
    memory::set_bits(bitmap.words.data(), 0, pages);
    return DirtyAnswer::everything;
  }
  if (dirty_->empty()) return answer;
  if (bitmap.page_size == page) {
    dirty_->mark(range, bitmap.words.data());
  } else {
    std::uint64_t* const small = cleared_words(DirtyBitmap::words_for(range.length(), page));
    dirty_->mark(range, small);
    memory::fold_bits({bitmap.words.data(), 0}, {small, 0}, range.length() / page,
                      static_cast<unsigned>(std::countr_zero(bitmap.page_size / page)));
  }
  if (after == AfterQuery::clear) dirty_->remove(range);
  return answer;
}

}  // namespace postern
