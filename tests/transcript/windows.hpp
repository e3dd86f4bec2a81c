// SPDX-License-Identifier: Apache-2.0
// The DMA windows that an sPAPR container has or may have.
#pragma once

#include <linux/vfio.h>
#include <unistd.h>

#include <algorithm>

#include "transcript/world.hpp"

namespace postern::transcript {

inline constexpr std::uint64_t dynamic_start = std::uint64_t{1} << 59;

// The default window, which the kernel creates on first use. Each container with an IOMMU has it until it is removed.
[[nodiscard]] inline Window default_window(const World& world) {
  return {.start = 0, .length = std::uint64_t{world.is_powernv ? 0x80000000U : 0x40000000U}, .page_shift = 12};
}

// The window that the kernel creates. On powernv a table has at least one page, which sets a minimum length.
[[nodiscard]] inline Window made_window(const World& world, const vfio_iommu_spapr_tce_create& request) {
  const auto entries = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 8;
  const std::uint64_t least = world.is_powernv ? entries << request.page_shift : 0;
  return {.start = request.start_addr,
          .length = std::max<std::uint64_t>(request.window_size, least),
          .page_shift = request.page_shift};
}

// An iova near the start, end or middle of a window, or outside of all.
[[nodiscard]] std::uint64_t some_window_iova(World& world, const World::Windows& windows);
// The part of the range before the end of any window that may contain its iova.
[[nodiscard]] std::uint64_t length_within(const World& world, const World::Windows& windows, Mapping range);

}  // namespace postern::transcript
