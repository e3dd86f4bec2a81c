// SPDX-License-Identifier: Apache-2.0
// WindowTable: which DMA windows a container has, and which more it may ask for. Makes no call: it is what keeps calls
// from the kernel that the kernel would answer badly.
#pragma once

#include <linux/vfio.h>

#include <cstdint>
#include <postern/dma_windows.hpp>
#include <postern/kernel.hpp>
#include <vector>

namespace postern::spapr {

// powernv is the bare machine; pseries, one under a hypervisor, which has narrower rules. They are told apart by the
// name in the device tree, since the kernel's answers do not: both say that they can have two windows.
enum class Platform { powernv, pseries };

// What is not known to be powernv is held to the narrower rules.
[[nodiscard]] Platform read_platform(Kernel& kernel);

// What ENODEV means of a window, and what to do: the kernel asks a hypervisor that failed it once for no window any
// more, on behalf of any process, until it is booted again (failed_ddw_pdn_list, Linux 6.12).
inline constexpr const char* windows_lost =
    "the kernel refuses every DMA window of this PCI host bridge, since one could not be had before "
    "(failed_ddw_pdn_list)";
inline constexpr const char* windows_back =
    "boot the host again; if it is so again, the hypervisor cannot give a window for all of its memory: for QEMU, say "
    "\"-m ...,maxmem=...\" and leave \"ddw\" on";

class WindowTable {
 public:
  WindowTable(Platform platform, std::uint64_t host_page) : platform_(platform), host_page_(host_page) {}

  // Begins with what VFIO_IOMMU_SPAPR_TCE_GET_INFO said: the default window alone.
  void begin(const vfio_iommu_spapr_tce_info& info);

  [[nodiscard]] std::uint64_t host_page() const noexcept { return host_page_; }
  [[nodiscard]] Iova default_start() const noexcept { return {default_start_}; }
  [[nodiscard]] DmaWindowLimits limits() const;
  [[nodiscard]] const std::vector<DmaWindow>& list() const noexcept { return windows_; }  // in the order they were made
  [[nodiscard]] const DmaWindow* default_window() const;
  // The window that starts there, or holds this iova.
  [[nodiscard]] const DmaWindow* starting_at(Iova start) const;
  [[nodiscard]] const DmaWindow* holding(Iova iova) const noexcept {
    for (const DmaWindow& window : windows_) {
      if (window.range.contains(iova)) return &window;
    }
    return nullptr;
  }

  // The argument of VFIO_IOMMU_SPAPR_TCE_CREATE, or why it must not be called.
  [[nodiscard]] Result<vfio_iommu_spapr_tce_create> plan(const DmaWindowRequest& request) const;
  // The smallest window that this much memory fits, with the largest pages up to `page_of_memory`.
  [[nodiscard]] DmaWindowRequest request_for(std::uint64_t bytes, std::uint64_t page_of_memory) const;
  // What the kernel has made of a plan, and where; null where it cannot be there: past the last address, or over
  // another. And what it has taken away.
  void reserve_one() { windows_.reserve(windows_.size() + 1); }  // then add() takes no memory
  const DmaWindow* add(const vfio_iommu_spapr_tce_create& wanted, Iova start);
  void remove(Iova start);

  // Bytes of locked memory that the kernel counts for a window's table.
  [[nodiscard]] std::uint64_t table_size(std::uint64_t window_size, std::uint64_t page_size) const;

 private:
  [[nodiscard]] std::uint32_t fewest_levels(const DmaWindowRequest& request) const;
  [[nodiscard]] bool levels_fit(const DmaWindowRequest& request, std::uint32_t levels) const;

  Platform platform_;
  std::uint64_t host_page_;
  std::uint64_t default_start_ = 0;
  DmaWindowLimits limits_;
  std::vector<DmaWindow> windows_;
};

}  // namespace postern::spapr
