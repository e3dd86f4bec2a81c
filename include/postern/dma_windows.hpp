// SPDX-License-Identifier: Apache-2.0
// DmaWindows: the ranges of iovas that a POWER IOMMU translates, and making more of them.
#pragma once

#include <cstdint>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <vector>

namespace postern {

// A range of iovas with a table of TCEs (translation control entries) behind it.
struct DmaWindow {
  IovaRange range;
  std::uint64_t page_size = 0;  // bytes: what one TCE maps, and what iova, address and length are multiples of in here
  std::uint32_t levels = 1;     // of the table
  bool created = false;         // by create(); otherwise it is the default window, which is there from the start
};

struct DmaWindowLimits {
  std::uint64_t page_sizes = 0;  // bitmap, of a window that is created
  std::uint32_t windows = 0;     // at a time, the default one included
  std::uint32_t levels = 0;      // at most
};

struct DmaWindowRequest {
  std::uint64_t size = 0;       // bytes, a power of two
  std::uint64_t page_size = 0;  // bytes
  std::uint32_t levels = 0;     // of the table; 0: as few as keep each part of it small
};

// What a container of the spapr backend can do with windows (Container::dma_windows()). A window becomes part of the
// container's usable ranges, and its mappings go by Container::map(). Windows stay until they are removed, or the last
// device leaves; they come back with the next device. Thread rules: those of the container.
class POSTERN_API DmaWindows {
 public:
  virtual ~DmaWindows() = default;

  [[nodiscard]] virtual DmaWindowLimits limits() const = 0;  // VFIO_IOMMU_SPAPR_TCE_GET_INFO
  [[nodiscard]] virtual std::vector<DmaWindow> list() const = 0;

  // Makes a window; the kernel says where. Memory of pages smaller than the window's cannot be mapped in it: a page
  // size beyond the host's wants hugetlb memory. Kernel: VFIO_IOMMU_SPAPR_TCE_CREATE. Errors: EINVAL (a page size that
  // the IOMMU does not have, a size that is no power of two or too small, too many levels), ENOSPC (no room for
  // another: the reason says what stands in the way), ENOMEM (the table counts as locked memory), ENODEV (no device is
  // attached, or the platform makes no windows).
  [[nodiscard]] virtual Result<DmaWindow> create(const DmaWindowRequest& request) = 0;

  // Errors: ENOENT (no window starts there), EBUSY (something is mapped in it: it is named).
  // Kernel: VFIO_IOMMU_SPAPR_TCE_REMOVE.
  [[nodiscard]] virtual Result<void> remove(Iova start) = 0;

  // A window that so many bytes fit into, empty of mappings or not: one that is there, or else a new one with the
  // largest pages that the IOMMU has and that `page_of_memory` allows (backing_page_size()). Errors: those of create().
  [[nodiscard]] virtual Result<DmaWindow> make_room(std::uint64_t bytes, std::uint64_t page_of_memory) = 0;

 protected:
  DmaWindows() = default;
  DmaWindows(const DmaWindows&) = default;
  DmaWindows& operator=(const DmaWindows&) = default;
};

}  // namespace postern
