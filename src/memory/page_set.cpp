// SPDX-License-Identifier: Apache-2.0
// PageSet: allocates chunks of bits where needed.
#include "memory/page_set.hpp"

#include <algorithm>
#include <bit>

#include "memory/page_bits.hpp"

namespace postern::memory {

PageSet::PageSet(std::uint64_t page_size) : page_shift_(static_cast<unsigned>(std::countr_zero(page_size))) {}

template <typename Visit>
void PageSet::for_each_part(IovaRange range, Visit visit) const {
  const std::uint64_t first = range.first.value >> page_shift_;
  const std::uint64_t last = range.last.value >> page_shift_;
  for (std::uint64_t page = first; page <= last;) {
    const std::uint64_t in_chunk = page % chunk_pages;
    const std::uint64_t count = std::min(chunk_pages - in_chunk, last - page + 1);
    visit(page / chunk_pages, in_chunk, page - first, count);
    page += count;
  }
}

void PageSet::add(IovaRange range) {
  for_each_part(range, [&](std::uint64_t number, std::uint64_t page, std::uint64_t, std::uint64_t count) {
    set_bits(chunks_[number].data(), page, count);
  });
}

void PageSet::add(IovaRange range, const std::uint64_t* bits) {
  for_each_part(range, [&](std::uint64_t number, std::uint64_t page, std::uint64_t offset, std::uint64_t count) {
    if (find_bit(bits, offset, offset + count) == offset + count) return;
    merge_bits({chunks_[number].data(), page}, {bits, offset}, count);
  });
}

void PageSet::remove(IovaRange range) {
  for_each_part(range, [&](std::uint64_t number, std::uint64_t page, std::uint64_t, std::uint64_t count) {
    const auto chunk = chunks_.find(number);
    if (chunk == chunks_.end()) return;
    clear_bits(chunk->second.data(), page, count);
    if (find_bit(chunk->second.data(), 0, chunk_pages) == chunk_pages) chunks_.erase(chunk);
  });
}

void PageSet::mark(IovaRange range, std::uint64_t* bits) const {
  if (chunks_.empty()) return;
  for_each_part(range, [&](std::uint64_t number, std::uint64_t page, std::uint64_t offset, std::uint64_t count) {
    const auto chunk = chunks_.find(number);
    if (chunk != chunks_.end()) merge_bits({bits, offset}, {chunk->second.data(), page}, count);
  });
}

}  // namespace postern::memory
