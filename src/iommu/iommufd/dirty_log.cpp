// SPDX-License-Identifier: Apache-2.0
// HwptDirtyLog: IOMMU_HWPT_SET_DIRTY_TRACKING and IOMMU_HWPT_GET_DIRTY_BITMAP, for every page table.
#include "iommu/iommufd/dirty_log.hpp"

#include <fmt/format.h>

#include <vector>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "iommu/iommufd/container.hpp"
#include "kernel/iommufd.hpp"

namespace postern::iommufd {

TrackedDevice HwptDirtyLog::probe(const Attached& device) const {
  const Hwpt* const hwpt = cdev_of(device).hwpt;
  if (hwpt != nullptr && hwpt->tracks_dirty()) {
    return {.device = device.host.name, .source = DirtySource::iommu, .note = ""};
  }
  return {.device = device.host.name,
          .source = DirtySource::none,
          .note = hwpt != nullptr ? "its IOMMU has no dirty bits (IOMMU_HW_CAP_DIRTY_TRACKING)"
                                  : "it has no page table in an IOMMU"};
}

Result<void> HwptDirtyLog::start(std::span<const Attached* const> devices) {
  std::vector<Hwpt*> started;  // turned off again after a failure
  started.reserve(devices.size());
  const auto stop_started = [&] {
    for (Hwpt* one : started) log_failure_of([&] { return one->track(false); });
  };
  const OnThrow undo(stop_started);
  for (const Attached* device : devices) {
    Hwpt* const hwpt = cdev_of(*device).hwpt;
    if (hwpt == nullptr || hwpt->is_tracked()) continue;
    if (auto on = hwpt->track(true); !on) {
      stop_started();
      return on;
    }
    started.push_back(hwpt);
  }
  return {};
}

Result<void> HwptDirtyLog::stop() {
  Result<void> stopped;
  for (Hwpt& hwpt : container_->hwpts()) {
    if (!hwpt.is_tracked()) continue;
    auto off = hwpt.track(false);
    if (stopped) stopped = std::move(off);
  }
  return stopped;
}

// The kernel only sets bits, so the results of several page tables accumulate. If a range has a hole, the call succeeds
// but ignores everything after the hole (iommu_read_and_clear_dirty drops the error, Linux 7.3): only mapped ranges may
// be queried.
int HwptDirtyLog::get_bitmap(const Hwpt& hwpt, const DirtyRequest& request, AfterQuery after) const {
  iommu_hwpt_get_dirty_bitmap get{};
  get.size = sizeof get;
  get.hwpt_id = hwpt.id();
  get.flags = after == AfterQuery::keep ? IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR : 0;
  get.iova = request.range.first.value;
  get.length = request.range.length();
  get.page_size = request.page_size;
  get.data = reinterpret_cast<std::uintptr_t>(request.bits);
  return iommu::hwpt_get_dirty_bitmap(iommufd_->kernel(), iommufd_->fd(), get);
}

Result<void> HwptDirtyLog::collect(const DirtyRequest& request, AfterQuery after) {
  for (const Hwpt& hwpt : container_->hwpts()) {
    const int result = hwpt.is_tracked() ? get_bitmap(hwpt, request, after) : 0;
    if (result < 0) {
      return call_failure(iommu::hwpt_get_dirty_bitmap.symbol,
                          {.result = result,
                           .object = fmt::format("dirty pages of {} in HWPT {}", to_string(request.range), hwpt.id())});
    }
  }
  return {};
}

// The unmap itself clears the dirty bits, so they are kept here.
Result<void> HwptDirtyLog::prepare_unmap(const DirtyRequest& mapping) { return collect(mapping, AfterQuery::keep); }

int HwptDirtyLog::unmap(const DirtyRequest& mapping) {
  iommu_ioas_unmap unmap{
      .size = sizeof unmap, .ioas_id = ioas_, .iova = mapping.range.first.value, .length = mapping.range.length()};
  return iommu::ioas_unmap(iommufd_->kernel(), iommufd_->fd(), unmap);
}

}  // namespace postern::iommufd
