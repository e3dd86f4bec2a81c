// SPDX-License-Identifier: Apache-2.0
// Iovas in and near DMA windows.
#include "transcript/windows.hpp"

namespace postern::transcript {

std::uint64_t some_window_iova(World& world, const World::Windows& windows) {
  Window window = default_window(world);
  if (!windows.created.empty() && world.random.chance(55)) {
    window = windows.created[world.random.below(windows.created.size())];
  }
  const std::uint64_t granule = std::uint64_t{1} << (world.random.chance(90) ? window.page_shift : 12);
  std::uint64_t iova = window.start + granule * world.random.below(48);
  const std::uint64_t place = world.random.below(100);
  if (place < 12) {
    iova = window.start + window.length - granule * world.random.below(24);
  } else if (place < 16) {
    iova = world.random.pick<std::uint64_t>(
        {dynamic_start, std::uint64_t{1} << 40, std::uint64_t{0} - 4096, window.start - granule});
  } else if (place < 22) {
    iova = window.start + window.length / 2 + granule * world.random.below(8);
  }
  return world.random.chance(4) ? iova + world.random.pick<std::uint64_t>({1, 8, 512, 2048}) : iova;
}

std::uint64_t length_within(const World& world, const World::Windows& windows, Mapping range) {
  std::uint64_t length = range.length;
  const auto shorten = [&](const Window& window) {
    const std::uint64_t offset = range.iova - window.start;
    if (offset < window.length) length = std::min(length, window.length - offset);
  };
  shorten(default_window(world));
  std::for_each(windows.created.begin(), windows.created.end(), shorten);
  return length;
}

}  // namespace postern::transcript
