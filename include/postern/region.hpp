// SPDX-License-Identifier: Apache-2.0
// Region and Interrupt: a device's regions and interrupts as VFIO reports them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace postern {

/// A mappable part of a region. Plain data.
struct RegionArea {
  std::uint64_t offset = 0;  ///< bytes from the start of the region
  std::uint64_t length = 0;  ///< bytes
};

/// The type of a device-specific region (VFIO_REGION_INFO_CAP_TYPE).
struct RegionType {
  std::uint32_t type = 0;     ///< VFIO_REGION_TYPE_*
  std::uint32_t subtype = 0;  ///< VFIO_REGION_SUBTYPE_*
};

/// A region, from VFIO_DEVICE_GET_REGION_INFO. On PCI, indices 0..5 are the BARs, 6 the ROM, 7 config space, 8 VGA; the
/// following ones are device-specific. Constant after the device is opened. Thread safety: as std::vector.
struct Region {
  std::uint32_t index = 0;                 ///< of the device
  std::uint64_t length = 0;                ///< bytes; 0: not implemented by the device
  std::uint64_t offset = 0;                ///< in the device fd; for the kernel interface, not for callers
  bool readable = false;                   ///< by Device::read()
  bool writable = false;                   ///< by Device::write()
  bool mappable = false;                   ///< by mmap(2), within mappable_areas
  bool msix_mappable = false;              ///< a mapping may contain the MSI-X table (..._CAP_MSIX_MAPPABLE)
  std::optional<RegionType> type;          ///< for a device-specific region
  std::vector<RegionArea> mappable_areas;  ///< VFIO_REGION_INFO_CAP_SPARSE_MMAP, or the whole region; empty if none
};

/// An interrupt, from VFIO_DEVICE_GET_IRQ_INFO. On PCI, index 0 is INTx, 1 MSI, 2 MSI-X, 3 error, 4 request. Constant
/// after the device is opened.
struct Interrupt {
  std::uint32_t index = 0;  ///< of the device
  std::uint32_t count = 0;  ///< vectors; 0: not implemented by the device
  bool eventfd = false;     ///< can signal an Event
  bool maskable = false;    ///< by Device::mask_interrupt()
  bool automasked = false;  ///< masked when it fires; unmask it to receive the next
  bool resizable = true;    ///< vectors can be added while others are enabled (VFIO_IRQ_INFO_NORESIZE is not set)
};

}  // namespace postern
