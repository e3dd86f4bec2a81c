// SPDX-License-Identifier: Apache-2.0
// Dma-bufs of BARs: exporting them, and mapping them anew after they were revoked.
#include <postern/dma_buf.hpp>

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "base/words.hpp"
#include "device/device_io.hpp"
#include "device/dma_buf.hpp"
#include "kernel/flex_array.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

// The kernel answers EINVAL to all of this.
Result<void> check_part(const Region& region, std::uint64_t offset, std::uint64_t length, const std::string& object) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  if (length == 0 || ((offset | length) & (page - 1)) != 0) {
    return refusal({.result = -EINVAL,
                    .object = object,
                    .reason = length == 0 ? "the length is zero"
                                          : fmt::format("a dma-buf has whole pages: offset and length must be "
                                                        "multiples of {}",
                                                        size_text(page))});
  }
  if (length <= region.length && offset <= region.length - length) return {};
  return refusal({.result = offset + length < offset ? -EOVERFLOW : -ERANGE,
                  .object = object,
                  .reason = fmt::format("the region has {:#x} bytes", region.length)});
}

void explain_export(CallFailed& what) {
  if (what.result == -ENOTTY) {
    what.reason = "the kernel exports no dma-bufs of this device";
    what.remedy = RemedyCode::map_bar_by_address;
  } else if (what.result == -ENODEV) {
    what.reason = "only BARs can be exported, and only while no other driver of this host holds them";
  } else if (what.result == -EINVAL) {
    what.reason = "only BARs of memory can be exported";
  }
}

}  // namespace

Result<Memory> export_dma_buf(const Device& device, std::uint32_t region, std::uint64_t offset, std::uint64_t length) {
  const Region& found = *POSTERN_TRY(device.find_region(region));
  CallFailed what{.object = fmt::format("{} region {} offset {:#x}+{:#x}", device.name(), region, offset, length)};
  POSTERN_TRY(check_part(found, offset, length, what.object));
  vfio_device_feature_dma_buf wanted;  // not initialized: clang has no {} for a flexible array
  wanted.region_index = region;
  wanted.open_flags = O_RDWR | O_CLOEXEC;
  wanted.flags = 0;
  wanted.nr_ranges = 1;
  const vfio_region_dma_range range{.offset = offset, .length = length};
  FlexArray<vfio_device_feature, std::uint8_t> feature(sizeof wanted + sizeof range);
  feature.head().flags = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF;
  std::memcpy(feature.tail(), &wanted, sizeof wanted);
  std::memcpy(feature.tail() + sizeof wanted, &range, sizeof range);
  what.result = device.io_->feature(feature.head());
  if (what.result < 0) {
    explain_export(what);
    return call_failure(vfio::device_feature.symbol, std::move(what));
  }
  Fd descriptor(device.io_->kernel(), what.result);
  return Memory::of_dma_buf(std::make_shared<const Fd>(std::move(descriptor)), 0, length);
}

Result<void> try_dma_buf(Container& container, const Mapping& mapping) {
  const std::uint64_t sizes = container.page_sizes();
  const std::uint64_t page = std::max<std::uint64_t>(sizes & -sizes, 4096);
  const Iova elsewhere = POSTERN_TRY(container.map_anywhere(mapping.memory.part(0, page), mapping.access));
  return container.unmap(elsewhere, page);
}

Result<void> remap_dma_bufs(Container& container, IovaRange range) {
  std::vector<Mapping> mappings;
  container.for_each_mapping([&](const Mapping& mapping) {
    if (mapping.memory.kind() == Memory::Kind::dma_buf && mapping.range.overlaps(range)) mappings.push_back(mapping);
  });
  for (const Mapping& mapping : mappings) {
    POSTERN_TRY(try_dma_buf(container, mapping));
    POSTERN_TRY(container.unmap(mapping.range.first, mapping.range.length()));
    POSTERN_TRY(container.map(mapping.range.first, mapping.memory, mapping.access));
  }
  return {};
}

}  // namespace postern
