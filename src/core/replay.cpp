// SPDX-License-Identifier: Apache-2.0
// replay(): maps in one container what another one maps.
#include "core/replay.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <postern/dma_windows.hpp>

#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

Result<void> replay_windows(DmaWindows& from, DmaWindows& to) {
  for (const DmaWindow& window : from.list()) {
    const auto there = to.list();
    const bool has_it = std::any_of(there.begin(), there.end(),
                                    [&](const DmaWindow& other) { return other.range.contains(window.range); });
    if (has_it || !window.created) continue;
    POSTERN_TRY(to.create({.size = window.range.length(), .page_size = window.page_size, .levels = window.levels}));
  }
  return {};
}

}  // namespace

Result<void> map_as_in(Container& from, Container& to, const Mapping& mapping) {
  if (POSTERN_TRY(to.space().copy(from.space(), mapping))) return {};
  return to.map(mapping.range.first, mapping.memory, mapping.access);
}

Result<void> replay(Container& from, Container& to) {
  Result<void> replayed;
  auto* const windows = from.get<DmaWindows>();
  auto* const new_windows = to.get<DmaWindows>();
  if (windows != nullptr && new_windows != nullptr) replayed = replay_windows(*windows, *new_windows);
  from.for_each_mapping([&](const Mapping& mapping) {
    if (!replayed) return;
    replayed = map_as_in(from, to, mapping);
  });
  if (replayed) return replayed;
  Error cause = std::move(replayed).error();
  return failure(
      {.code = cause.code(),
       .kind = cause.kind(),
       .operation = cause.operation(),
       .object = fmt::format("new container {}", to.backend()),
       .reason = fmt::format("{} of {} mappings could be replayed into it", to.mapping_count(), from.mapping_count()),
       .causes = {std::move(cause)}});
}

}  // namespace postern
