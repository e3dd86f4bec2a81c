// SPDX-License-Identifier: Apache-2.0
// Reads VFIO_IOMMU_GET_INFO of a type1 container.
#include "iommu/type1/info.hpp"

#include "kernel/info_buffer.hpp"
#include "kernel/vfio.hpp"

namespace postern::type1 {
namespace {

std::vector<IovaRange> parse_ranges(const vfio_iommu_type1_info_cap_iova_range& capability, std::size_t available) {
  const std::size_t room = (available - sizeof capability) / sizeof(vfio_iova_range);
  std::vector<IovaRange> ranges;
  for (std::size_t i = 0; i < capability.nr_iovas && i < room; ++i) {
    const vfio_iova_range& range = capability.iova_ranges[i];
    if (range.start <= range.end) ranges.push_back({{range.start}, {range.end}});
  }
  return ranges;
}

}  // namespace

Result<Info> read_info(const Fd& container) {
  InfoBuffer<vfio_iommu_type1_info> buffer;
  const int result = buffer.fetch(
      [&](vfio_iommu_type1_info& info) { return vfio::iommu_get_info(container.kernel(), container.get(), info); });
  if (result < 0) return call_failure(vfio::iommu_get_info.symbol, {.result = result, .object = "container type1"});

  Info found;
  const vfio_iommu_type1_info& info = buffer.info();
  if ((info.flags & VFIO_IOMMU_INFO_PGSIZES) != 0) found.page_sizes = info.iova_pgsizes;
  if ((info.flags & VFIO_IOMMU_INFO_CAPS) == 0) return found;
  buffer.for_each_capability(info.cap_offset, [&](const vfio_info_cap_header& header, std::size_t available) {
    switch (header.id) {
      case VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE:
        if (const auto* ranges = capability_as<vfio_iommu_type1_info_cap_iova_range>(header, available)) {
          found.iova_ranges = parse_ranges(*ranges, available);
        }
        break;
      case VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION:
        if (const auto* migration = capability_as<vfio_iommu_type1_info_cap_migration>(header, available)) {
          found.migration =
              MigrationInfo{.page_sizes = migration->pgsize_bitmap, .largest_bitmap = migration->max_dirty_bitmap_size};
        }
        break;
      case VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL:
        if (const auto* left = capability_as<vfio_iommu_type1_info_dma_avail>(header, available)) {
          found.mappings_left = left->avail;
        }
        break;
      default:  // a capability of a newer kernel
        break;
    }
  });
  return found;
}

}  // namespace postern::type1
