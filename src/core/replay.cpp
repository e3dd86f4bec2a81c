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

Result<void> map_one(Container& container, const Mapping& mapping, ExaminedFiles& files) {
  const Iova iova = mapping.range.first;
  if (mapping.memory.kind() == Memory::Kind::address) return container.map(iova, mapping.memory, mapping.access);
  AddressSpace& space = container.space();
  const OneThread::Use use(space.one_thread());
  if (!use) return space.refuse_second_thread("map");
  return space.map_file(iova, mapping.memory, mapping.access, files);
}

Result<void> map_as_in(Container& from, Container& to, const Mapping& mapping, ExaminedFiles& files) {
  if (POSTERN_TRY(to.space().copy(from.space(), mapping))) return {};
  return map_one(to, mapping, files);
}

Result<void> replay(Container& from, Container& to) {
  Result<void> replayed;
  auto* const windows = from.get<DmaWindows>();
  auto* const new_windows = to.get<DmaWindows>();
  if (windows != nullptr && new_windows != nullptr) replayed = replay_windows(*windows, *new_windows);
  ExaminedFiles files(ExaminedFiles::AddedPages::stay);  // they are those of the first container
  from.for_each_mapping([&](const Mapping& mapping) {
    if (replayed) replayed = map_as_in(from, to, mapping, files);
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
