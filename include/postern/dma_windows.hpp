// SPDX-License-Identifier: Apache-2.0
// DmaWindows: the iova ranges that a POWER IOMMU translates, and how to create more.
#pragma once

#include <cstdint>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <string_view>
#include <vector>

namespace postern {

/// A range of iovas that a table of TCEs (translation control entries) translates.
struct DmaWindow {
  IovaRange range;              ///< its iovas
  std::uint64_t page_size = 0;  ///< bytes per TCE; iova, address and length of a mapping are multiples of it
  std::uint32_t levels = 1;     ///< levels of the table
  bool created = false;         ///< made by create(); false: the default window, which exists from the start
};

/// What the IOMMU supports.
struct DmaWindowLimits {
  std::uint64_t page_sizes = 0;  ///< bitmap, for created windows
  std::uint32_t windows = 0;     ///< maximum number at a time, including the default window
  std::uint32_t levels = 0;      ///< maximum; 0: the platform creates no windows
};

/// The window to create.
struct DmaWindowRequest {
  std::uint64_t size = 0;       ///< bytes, a power of two
  std::uint64_t page_size = 0;  ///< bytes
  std::uint32_t levels = 0;     ///< levels of the table; 0: as few as keep each part of it small
};

/// DMA windows of a container of the spapr backend (container.get<DmaWindows>()). Each window is one of the container's
/// usable ranges; map into it with Container::map(). A window exists until it is removed. The kernel drops all windows
/// when the last device detaches; they are restored with the next. Thread safety: as the container.
class POSTERN_API DmaWindows final {
 public:
  static constexpr std::string_view capability = "DMA windows";  ///< for Container::get()

  [[nodiscard]] DmaWindowLimits limits() const;       ///< VFIO_IOMMU_SPAPR_TCE_GET_INFO
  [[nodiscard]] std::vector<DmaWindow> list() const;  ///< existing windows

  /// Creates a window at an iova that the kernel chooses. Memory mapped in it must have pages at least as large as the
  /// window's: a page size above the host's requires hugetlb memory. Kernel: VFIO_IOMMU_SPAPR_TCE_CREATE. Errors:
  /// EINVAL (page size not supported by the IOMMU; size not a power of two, or too small; too many levels), ENOSPC (no
  /// further window possible: the reason says why), ENOMEM (the table counts as locked memory), ENODEV (no device is
  /// attached, or the platform creates no windows), EPERM (the platform refuses), EPROTO (the kernel returned an
  /// impossible address).
  [[nodiscard]] Result<DmaWindow> create(const DmaWindowRequest& request);

  /// Removes the window that starts at this iova. Kernel: VFIO_IOMMU_SPAPR_TCE_REMOVE. Errors: ENOENT (no window starts
  /// there), EBUSY (it contains a mapping, which is named), ENODEV (no device is attached).
  [[nodiscard]] Result<void> remove(Iova start);

  /// Returns a window of at least this many bytes, which may contain mappings: an existing window, or else a new one.
  /// Its pages are no larger than `page_of_memory` (backing_page_size()); a new window has the largest such pages that
  /// the IOMMU supports. Errors: those of create().
  [[nodiscard]] Result<DmaWindow> make_room(std::uint64_t bytes, std::uint64_t page_of_memory);

  class Impl;                                                 // for the library itself: what a backend implements
  explicit DmaWindows(Impl& impl) noexcept : impl_(&impl) {}  ///< for the library itself

 private:
  Impl* impl_;
};

}  // namespace postern
