// SPDX-License-Identifier: Apache-2.0
// What address spaces reckon with: an address as a number, the empty range, the smallest page.
#pragma once

#include <algorithm>
#include <cstdint>
#include <postern/iova.hpp>
#include <postern/mapping.hpp>

namespace postern {

inline std::uint64_t address_of(const void* pointer) noexcept { return reinterpret_cast<std::uintptr_t>(pointer); }

// The empty range; it ends before it starts.
inline constexpr IovaRange nowhere{{1}, {0}};

// At least 4 KiB: smaller mappings are useless, and an IOMMU that reports no page sizes has pages, too.
inline std::uint64_t smallest_page_of(const ContainerLimits& limits) noexcept {
  return std::max<std::uint64_t>(limits.page_sizes & -limits.page_sizes, 4096);
}

}  // namespace postern
