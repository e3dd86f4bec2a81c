// SPDX-License-Identifier: Apache-2.0
// Region and Interrupt: what VFIO says of a device's registers and interrupts.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace postern {

// Plain data, which does not change after the device was opened; thread rules: as for std::vector.

// Part of a region that can be mapped, in bytes from the region's start.
struct RegionArea {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;
};

// What a device-specific region is (VFIO_REGION_INFO_CAP_TYPE).
struct RegionType {
  std::uint32_t type = 0;
  std::uint32_t subtype = 0;
};

// One answer of VFIO_DEVICE_GET_REGION_INFO. For PCI, index 0..5 are the BARs, 6 the ROM, 7 config space, 8 VGA, and
// what follows is the device's own.
struct Region {
  std::uint32_t index = 0;
  std::uint64_t length = 0;  // bytes; 0: the device does not have it
  std::uint64_t offset = 0;  // in the device fd: for the kernel interface, not for callers
  bool readable = false;
  bool writable = false;
  bool mappable = false;                   // by mmap(2), in mappable_areas
  bool msix_mappable = false;              // VFIO_REGION_INFO_CAP_MSIX_MAPPABLE: the MSI-X table may lie in a mapping
  std::optional<RegionType> type;          // VFIO_REGION_INFO_CAP_TYPE
  std::vector<RegionArea> mappable_areas;  // from VFIO_REGION_INFO_CAP_SPARSE_MMAP, or the whole; empty if not mappable
};

// One answer of VFIO_DEVICE_GET_IRQ_INFO. For PCI, index 0 is INTx, 1 MSI, 2 MSI-X, 3 error, 4 request.
struct Interrupt {
  std::uint32_t index = 0;
  std::uint32_t count = 0;  // vectors; 0: the device does not have it
  bool eventfd = false;     // can signal an Event
  bool maskable = false;
  bool automasked = false;  // masks itself when it fires; unmask it to get the next
  bool resizable = true;    // vectors can be added while others are on (VFIO_IRQ_INFO_NORESIZE is not set)
};

}  // namespace postern
