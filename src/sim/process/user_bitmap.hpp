// SPDX-License-Identifier: Apache-2.0
// UserBitmap: the process's bitmap of dirty pages, in its memory.
#pragma once

#include <cstdint>
#include <postern/iova.hpp>
#include <set>

#include "sim/process/process.hpp"

namespace postern::sim {

struct UserBitmap {
  std::uintptr_t bits = 0;  // in the process's memory: bit 0 is the page at `iova`
  Iova iova;
  std::uint64_t page_size = 4096;  // a power of two

  // Sets the bits of the pages in the range; pages are iovas, of 4 KiB each. Bits in memory that does not exist are
  // dropped without an error (iova_bitmap_set, Linux 7.3).
  void tell(Process& process, const std::set<std::uint64_t>& pages, IovaRange range) const;
};

// Removes the pages in the range.
void clear_pages(std::set<std::uint64_t>& pages, IovaRange range);

}  // namespace postern::sim
