// SPDX-License-Identifier: Apache-2.0
// Replaying what one container maps into another.
#include "core/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <postern/dma_windows.hpp>

#include "kernel/ioctl.hpp"

namespace postern {
namespace {

Result<void> replay_windows(DmaWindows& from, DmaWindows& to) {
  for (const DmaWindow& window : from.list()) {
    const auto there = to.list();
    const bool has_it = std::any_of(there.begin(), there.end(),
                                    [&](const DmaWindow& other) { return other.range.contains(window.range); });
    if (has_it || !window.created) continue;
    auto made = to.create({.size = window.range.length(), .page_size = window.page_size, .levels = window.levels});
    if (!made) return failure_of(made);
  }
  return {};
}

}  // namespace

Result<void> replay(Container& from, Container& to) {
  Result<void> replayed;
  if (from.dma_windows() != nullptr && to.dma_windows() != nullptr) {
    replayed = replay_windows(*from.dma_windows(), *to.dma_windows());
  }
  from.for_each_mapping([&](const Mapping& mapping) {
    if (!replayed) return;
    replayed =
        to.map(mapping.range.first, {static_cast<std::byte*>(mapping.address), mapping.range.length()}, mapping.access);
  });
  if (replayed) return replayed;
  return failure(
      {.code = replayed.error().code(),
       .operation = replayed.error().operation(),
       .object = fmt::format("new container {}", to.backend()),
       .reason = fmt::format("{} of {} mappings could be replayed into it", to.mapping_count(), from.mapping_count()),
       .remedy = {},
       .causes = {std::move(replayed).error()}});
}

}  // namespace postern
