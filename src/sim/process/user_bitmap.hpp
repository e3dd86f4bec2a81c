// SPDX-License-Identifier: Apache-2.0
// UserBitmap: where a process wants to be told which pages were written.
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

  // Sets the bits of those of the pages that are in the range; pages are iovas, of 4 KiB each. Memory that is not there
  // gets no bits, and nobody is told (iova_bitmap_set, Linux 7.3).
  void tell(Process& process, const std::set<std::uint64_t>& pages, IovaRange range) const;
};

// The pages in the range are forgotten.
void forget(std::set<std::uint64_t>& pages, IovaRange range);

}  // namespace postern::sim
