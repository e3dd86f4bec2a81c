// SPDX-License-Identifier: Apache-2.0
// IommuModel: the features of a simulated host's IOMMU.
#pragma once

#include <cstdint>
#include <postern-sim/host.hpp>
#include <postern/iova.hpp>
#include <vector>

namespace postern::sim {

enum class IommuUnit : std::uint8_t { vtd, smmuv3 };

struct IommuModel {
  IommuUnit unit = IommuUnit::vtd;
  std::uint64_t page_sizes = 0x40201000;                          // bitmap, bytes
  IovaRange aperture{{0}, {(std::uint64_t{1} << 39) - 1}};        // the iovas that it translates
  std::vector<IovaRange> reserved{{{0xfee00000}, {0xfeefffff}}};  // within the aperture, sorted: for interrupts
  bool has_dirty_bits = false;                                    // IOMMU_HW_CAP_DIRTY_TRACKING
};

// For hosts with type1 and iommufd; POWER hosts have a TcePlatform instead.
[[nodiscard]] IommuModel make_iommu_model(const Host& host);

// The aperture without the reserved ranges.
[[nodiscard]] inline std::vector<IovaRange> usable_ranges(const IommuModel& iommu) {
  std::vector<IovaRange> ranges;
  Iova next = iommu.aperture.first;
  for (const IovaRange reserved : iommu.reserved) {
    if (next < reserved.first) ranges.push_back({next, reserved.first - 1});
    next = reserved.last + 1;
  }
  if (next <= iommu.aperture.last) ranges.push_back({next, iommu.aperture.last});
  return ranges;
}

}  // namespace postern::sim
