// SPDX-License-Identifier: Apache-2.0
// PageSet: a set of pages of an address space, sparse or dense.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <postern/iova.hpp>

namespace postern::memory {

// Ranges consist of whole pages. Bitmaps have a bit for each page of the range, bit 0 for the first.
class PageSet {
 public:
  explicit PageSet(std::uint64_t page_size);

  void add(IovaRange range);
  void add(IovaRange range, const std::uint64_t* bits);
  void remove(IovaRange range);
  // Sets the bits of the pages that are in the set.
  void mark(IovaRange range, std::uint64_t* bits) const;

  [[nodiscard]] bool empty() const noexcept { return chunks_.empty(); }

 private:
  static constexpr std::uint64_t chunk_pages = 1 << 15;  // 4 KiB of bits
  using Chunk = std::array<std::uint64_t, chunk_pages / 64>;

  // Calls visit(chunk's number, first page in it, first page in the range, how many) for each chunk of the range,
  // present or not.
  template <typename Visit>
  void for_each_part(IovaRange range, Visit visit) const;

  unsigned page_shift_;
  std::map<std::uint64_t, Chunk> chunks_;
};

}  // namespace postern::memory
