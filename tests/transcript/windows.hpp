// SPDX-License-Identifier: Apache-2.0
// The DMA windows that a container of sPAPR has, or may have: what is known of them.
#pragma once

#include <linux/vfio.h>
#include <unistd.h>

#include <algorithm>

#include "transcript/world.hpp"

namespace postern::transcript {

inline constexpr std::uint64_t dynamic_start = std::uint64_t{1} << 59;

// It is made when it is needed, and every container that has an IOMMU has it, as long as nobody removes it.
[[nodiscard]] inline Window default_window(const World& world) {
  return {.start = 0, .length = std::uint64_t{world.is_powernv ? 0x80000000U : 0x40000000U}, .page_shift = 12};
}

// On powernv a table is a page of the kernel's at least, and the window as long as that makes it.
[[nodiscard]] inline Window made_window(const World& world, const vfio_iommu_spapr_tce_create& request) {
  const auto entries = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)) / 8;
  const std::uint64_t least = world.is_powernv ? entries << request.page_shift : 0;
  return {.start = request.start_addr,
          .length = std::max<std::uint64_t>(request.window_size, least),
          .page_shift = request.page_shift};
}

// Begin, end and middle of windows, and where there is none.
[[nodiscard]] std::uint64_t some_window_iova(World& world, const World::Windows& windows);
// How much of this length, from this iova, is before the end of every window that the iova may be in.
[[nodiscard]] std::uint64_t length_within(const World& world, const World::Windows& windows, Mapping range);

}  // namespace postern::transcript
