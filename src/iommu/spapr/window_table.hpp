// SPDX-License-Identifier: Apache-2.0
// WindowTable: the DMA windows of a container, and the checks of requests for more. Makes no system calls; it prevents
// calls that the kernel mishandles.
#pragma once

#include <linux/vfio.h>

#include <cstdint>
#include <postern/dma_windows.hpp>
#include <postern/kernel.hpp>
#include <vector>

namespace postern::spapr {

// powernv is bare metal; pseries runs under a hypervisor, with narrower limits. The name in the device tree
// distinguishes them, since the kernel reports two possible windows for both.
enum class Platform { powernv, pseries };

// Anything that is not powernv gets the narrower limits. Errors: those of reading the device tree, if there is one.
[[nodiscard]] Result<Platform> find_platform(Kernel& kernel);
// The same; where it cannot be read, too.
[[nodiscard]] Platform read_platform(Kernel& kernel);

// The reason for ENODEV from a window: after the hypervisor has refused one, the kernel requests no more, for any
// process, until the next boot (failed_ddw_pdn_list, Linux 6.12).
inline constexpr const char* windows_lost =
    "the kernel refuses every DMA window of this PCI host bridge, because an earlier one could not be created "
    "(failed_ddw_pdn_list)";

class WindowTable {
 public:
  WindowTable(Platform platform, std::uint64_t host_page) : platform_(platform), host_page_(host_page) {}

  // Starts with the result of VFIO_IOMMU_SPAPR_TCE_GET_INFO: only the default window.
  void begin(const vfio_iommu_spapr_tce_info& info);

  [[nodiscard]] std::uint64_t host_page() const noexcept { return host_page_; }
  [[nodiscard]] Iova default_start() const noexcept { return {default_start_}; }
  [[nodiscard]] DmaWindowLimits limits() const;
  [[nodiscard]] const std::vector<DmaWindow>& list() const noexcept { return windows_; }  // in order of creation
  [[nodiscard]] const DmaWindow* default_window() const;
  // The window that starts there, or contains this iova.
  [[nodiscard]] const DmaWindow* starting_at(Iova start) const;
  [[nodiscard]] const DmaWindow* holding(Iova iova) const noexcept {
    const DmaWindow* window = windows_.data();
    const DmaWindow* const end = window + windows_.size();
#pragma GCC unroll 1  // there are at most two
    for (; window != end; ++window) {
      if (window->range.contains(iova)) return window;
    }
    return nullptr;
  }

  // Returns the argument of VFIO_IOMMU_SPAPR_TCE_CREATE, or why it must not be called.
  [[nodiscard]] Result<vfio_iommu_spapr_tce_create> plan(const DmaWindowRequest& request) const;
  // Returns the smallest window for this much memory, with the largest pages up to `page_of_memory`.
  [[nodiscard]] DmaWindowRequest request_for(std::uint64_t bytes, std::uint64_t page_of_memory) const;
  // Records the window that the kernel has created, or removed. add() returns null if the window cannot be where the
  // kernel placed it: past the last address, or over another one.
  void reserve_one() { windows_.reserve(windows_.size() + 1); }  // then add() allocates nothing
  const DmaWindow* add(const vfio_iommu_spapr_tce_create& wanted, Iova start);
  void remove(Iova start);

  // Returns the locked memory in bytes that the kernel counts for a window's table.
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
