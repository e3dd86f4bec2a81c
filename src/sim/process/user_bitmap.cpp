// SPDX-License-Identifier: Apache-2.0
// UserBitmap: sets bits in the process's memory.
#include "sim/process/user_bitmap.hpp"

#include <bit>
#include <cstddef>

namespace postern::sim {
namespace {

void set_bits(Process& process, std::uintptr_t bitmap, std::uint64_t first, std::uint64_t last) {
  for (std::uint64_t bit = first; bit <= last; ++bit) {
    const std::uintptr_t address = bitmap + bit / 8;
    if (process.check(address, 1, true) < 0) return;
    *reinterpret_cast<std::byte*>(address) |= std::byte{1} << bit % 8;
  }
}

}  // namespace

void UserBitmap::tell(Process& process, const std::set<std::uint64_t>& pages, IovaRange range) const {
  const int shift = std::countr_zero(page_size);
  const auto end = pages.upper_bound(range.last.value);
  for (auto at = pages.lower_bound(range.first.value); at != end; ++at) {
    const std::uint64_t offset = *at - iova.value;
    set_bits(process, bits, offset >> shift, (offset + Process::page_size - 1) >> shift);
  }
}

void clear_pages(std::set<std::uint64_t>& pages, IovaRange range) {
  pages.erase(pages.lower_bound(range.first.value), pages.upper_bound(range.last.value));
}

}  // namespace postern::sim
