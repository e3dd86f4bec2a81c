// SPDX-License-Identifier: Apache-2.0
// WindowTable: the checks of DMA windows, each with the kernel function that requires it.
#include "iommu/spapr/window_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/sysfs.hpp"
#include "kernel/spapr.hpp"

namespace postern::spapr {
namespace {

// The page size of every default window (spapr_tce_create_table and pnv_pci_ioda2_setup_default_config), for all page
// sizes of the host.
constexpr std::uint64_t default_page = 4096;

constexpr std::uint64_t bytes_of_tce = 8;

std::uint32_t log2_of(std::uint64_t power) { return static_cast<std::uint32_t>(std::countr_zero(power)); }

// Returns the smallest window with this many bytes, or the largest possible one.
std::uint64_t size_holding(std::uint64_t bytes) {
  constexpr std::uint64_t largest = std::uint64_t{1} << 63;
  return std::bit_ceil(std::min(bytes, largest));
}

std::string request_text(const DmaWindowRequest& request) {
  return fmt::format("DMA window of {} with pages of {}", size_text(request.size), size_text(request.page_size));
}

}  // namespace

Result<Platform> find_platform(Kernel& kernel) {
  constexpr const char* path = "/proc/device-tree/compatible";
  std::string names;  // each followed by a zero byte
  const int result = kernel.read_file(path, names);
  if (result < 0 && result != -ENOENT) return sysfs::unread("read", result, path);
  return names.find("ibm,powernv") != std::string::npos ? Platform::powernv : Platform::pseries;
}

Platform read_platform(Kernel& kernel) { return find_platform(kernel).value_or(Platform::pseries); }

void WindowTable::begin(const vfio_iommu_spapr_tce_info& info) {
  default_start_ = info.dma32_window_start;
  windows_.clear();
  if (const auto range = IovaRange::from_length({default_start_}, info.dma32_window_size)) {
    windows_.push_back({.range = *range, .page_size = default_page, .levels = 1, .created = false});
  }
  limits_ = {.page_sizes = 0, .windows = 1, .levels = 0};
  // A host bridge without dynamic windows reports 2^32-1 of them, with tables of 0 levels (Linux 6.12).
  constexpr std::uint32_t absurd = 64;
  if ((info.flags & VFIO_IOMMU_SPAPR_INFO_DDW) == 0 || info.ddw.levels == 0 ||
      info.ddw.max_dynamic_windows_supported > absurd) {
    return;
  }
  limits_ = {
      .page_sizes = info.ddw.pgsizes, .windows = info.ddw.max_dynamic_windows_supported, .levels = info.ddw.levels};
}

DmaWindowLimits WindowTable::limits() const { return limits_; }

const DmaWindow* WindowTable::default_window() const {
  const auto found =
      std::find_if(windows_.begin(), windows_.end(), [](const DmaWindow& window) { return !window.created; });
  return found == windows_.end() ? nullptr : &*found;
}

const DmaWindow* WindowTable::starting_at(Iova start) const {
  const auto found =
      std::find_if(windows_.begin(), windows_.end(), [&](const DmaWindow& w) { return w.range.first == start; });
  return found == windows_.end() ? nullptr : &*found;
}

// A table of L levels is a tree with nodes of 2^level_shift bytes. powernv refuses a table that would span 55 bits or
// more (pnv_pci_ioda2_table_alloc_pages, Linux 6.12), but still counts its memory (tce_iommu_create_table). So it must
// not be requested.
bool WindowTable::levels_fit(const DmaWindowRequest& request, std::uint32_t levels) const {
  if (levels == 0 || levels > limits_.levels) return false;
  if (platform_ != Platform::powernv) return true;
  const std::uint32_t page_shift = log2_of(request.page_size);
  const std::uint32_t entries_shift = log2_of(request.size) - page_shift;
  const std::uint32_t level_shift = std::max((entries_shift + levels - 1) / levels + 3, log2_of(host_page_));
  return (level_shift - 3) * levels + page_shift < 55;
}

std::uint32_t WindowTable::fewest_levels(const DmaWindowRequest& request) const {
  // Each node is contiguous memory, which is hard to get if it is large. 256 KiB are not.
  constexpr std::uint32_t comfortable_shift = 18;
  const std::uint32_t entries_shift = log2_of(request.size) - log2_of(request.page_size);
  std::uint32_t best = 1;
  for (std::uint32_t levels = 1; levels_fit(request, levels); ++levels) {
    best = levels;
    if ((entries_shift + levels - 1) / levels + log2_of(bytes_of_tce) <= comfortable_shift) break;
  }
  return best;
}

std::uint64_t WindowTable::table_size(std::uint64_t window_size, std::uint64_t page_size) const {
  // powernv keeps a second table, of user-space addresses (pnv_pci_ioda2_table_alloc_pages).
  const std::uint64_t tables = platform_ == Platform::powernv ? 2 : 1;
  return tables * std::max(window_size / page_size * bytes_of_tce, host_page_);
}

Result<vfio_iommu_spapr_tce_create> WindowTable::plan(const DmaWindowRequest& request) const {
  CallFailed what{.result = -EINVAL, .object = request_text(request)};
  // A table has at least one page. The kernel silently enlarges a smaller window (pnv_pci_ioda2_table_alloc_pages).
  const std::uint64_t smallest = host_page_ / bytes_of_tce * request.page_size;
  const std::uint32_t levels = request.levels;
  if (limits_.levels == 0) {
    what.result = -ENODEV;
    what.kind = ErrorKind::unsupported;
    what.reason = "the platform creates no windows except the default one for this device";
    what.remedy = RemedyCode::map_in_default_window;
  } else if (!std::has_single_bit(request.page_size) || (request.page_size & limits_.page_sizes) == 0) {
    what.reason = fmt::format("the IOMMU has pages of {}", page_sizes_text(limits_.page_sizes));
    what.remedy = RemedyCode::choose_window_page_size;
  } else if (!std::has_single_bit(request.size)) {
    what.reason = "the size is not a power of two";
    what.remedy = remedy<RemedyCode::choose_window_size>(size_text(size_holding(std::max(request.size, smallest))));
  } else if (request.size < smallest) {
    what.reason = fmt::format("the smallest window with this page size is {}", size_text(smallest));
    what.remedy = remedy<RemedyCode::choose_window_size>(size_text(smallest));
  } else if (levels != 0 && !levels_fit(request, levels)) {
    what.reason = fmt::format("a table of {} levels is too deep for this window", levels);
    what.remedy = remedy<RemedyCode::omit_window_levels>(std::to_string(fewest_levels(request)));
  } else if (windows_.size() >= limits_.windows) {
    what.result = -ENOSPC;
    what.reason = fmt::format("all {} windows are in use", limits_.windows);
    what.remedy = RemedyCode::remove_window;
  } else if (platform_ == Platform::pseries && std::any_of(windows_.begin(), windows_.end(), [&](const DmaWindow& w) {
               return w.range.first.value != default_start_;
             })) {
    // The hypervisor supports one window besides the default one. It refuses a request for another, and then the kernel
    // permanently refuses every window of this host bridge, for all processes (failed_ddw_pdn_list, enable_ddw and
    // spapr_tce_create_table, Linux 6.12). Once the default window was removed, it cannot be created again while the
    // other exists (EPERM).
    what.result = -ENOSPC;
    what.reason =
        "this hypervisor has one 64-bit window, which is in use; a request for another would make every window of this "
        "host bridge unavailable until the host is rebooted";
    what.remedy = RemedyCode::remove_64bit_window;
  } else {
    return vfio_iommu_spapr_tce_create{.argsz = sizeof(vfio_iommu_spapr_tce_create),
                                       .flags = 0,
                                       .page_shift = log2_of(request.page_size),
                                       .__resv1 = 0,
                                       .window_size = request.size,
                                       .levels = levels != 0 ? levels : fewest_levels(request),
                                       .__resv2 = 0,
                                       .start_addr = 0};
  }
  return refusal(std::move(what));
}

DmaWindowRequest WindowTable::request_for(std::uint64_t bytes, std::uint64_t page_of_memory) const {
  std::uint64_t page = limits_.page_sizes & (2 * std::bit_floor(page_of_memory) - 1);
  page = page != 0 ? std::bit_floor(page) : default_page;
  return {.size = size_holding(std::max(bytes, host_page_ / bytes_of_tce * page)), .page_size = page, .levels = 0};
}

const DmaWindow* WindowTable::add(const vfio_iommu_spapr_tce_create& wanted, Iova start) {
  const std::uint64_t page = std::uint64_t{1} << wanted.page_shift;
  const auto range = IovaRange::from_length(start, wanted.window_size);
  const bool can_be = range && start.value % page == 0 &&
                      std::none_of(windows_.begin(), windows_.end(),
                                   [&](const DmaWindow& window) { return window.range.overlaps(*range); });
  if (!can_be) return nullptr;
  return &windows_.emplace_back(
      DmaWindow{.range = *range, .page_size = page, .levels = wanted.levels, .created = true});
}

void WindowTable::remove(Iova start) {
  std::erase_if(windows_, [&](const DmaWindow& window) { return window.range.first == start; });
}

}  // namespace postern::spapr
