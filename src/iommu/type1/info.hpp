// SPDX-License-Identifier: Apache-2.0
// Reads VFIO_IOMMU_GET_INFO of a type1 container, including its capability chain.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/container.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <vector>

namespace postern::type1 {

struct MigrationInfo {               // VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION
  std::uint64_t page_sizes = 0;      // bitmap of the page sizes of the dirty log
  std::uint64_t largest_bitmap = 0;  // bytes
};

struct Info {
  std::uint64_t page_sizes = 0;                       // bitmap
  std::optional<std::vector<IovaRange>> iova_ranges;  // VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, Linux 5.4
  std::optional<std::uint32_t> mappings_left;         // VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, Linux 5.10
  std::optional<MigrationInfo> migration;             // Linux 5.8
};

[[nodiscard]] Result<Info> read_info(const Fd& container);

}  // namespace postern::type1
