// SPDX-License-Identifier: Apache-2.0
// HwptDirtyLog: IOMMU_HWPT_SET_DIRTY_TRACKING and IOMMU_HWPT_GET_DIRTY_BITMAP, for every page table that there is.
#include "iommu/iommufd/dirty_log.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "kernel/iommufd.hpp"

namespace postern::iommufd {

Hwpt* HwptDirtyLog::hwpt_of(const std::string& device) const {
  const auto found = std::find_if(attached_->begin(), attached_->end(),
                                  [&](const AttachedDevice& attached) { return attached.name == device; });
  return found != attached_->end() ? found->hwpt : nullptr;
}

TrackedDevice HwptDirtyLog::probe(const std::string& device) const {
  const Hwpt* const hwpt = hwpt_of(device);
  if (hwpt != nullptr && hwpt->tracks_dirty()) return {.device = device, .source = DirtySource::iommu, .note = ""};
  return {.device = device,
          .source = DirtySource::nobody,
          .note = hwpt != nullptr ? "its IOMMU has no dirty bits (IOMMU_HW_CAP_DIRTY_TRACKING)"
                                  : "it has no page table in an IOMMU"};
}

Result<void> HwptDirtyLog::track(Hwpt& hwpt, bool on) const {
  iommu_hwpt_set_dirty_tracking set{};
  set.size = sizeof set;
  set.flags = on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0;
  set.hwpt_id = hwpt.id();
  if (const int result = iommu::hwpt_set_dirty_tracking(iommufd_->kernel(), iommufd_->fd(), set); result < 0) {
    return call_failure(
        iommu::hwpt_set_dirty_tracking.symbol,
        {.result = result, .object = fmt::format("{} HWPT {} of IOAS {}", on ? "track" : "untrack", hwpt.id(), ioas_)});
  }
  hwpt.is_tracked = on;
  return {};
}

Result<void> HwptDirtyLog::start(std::span<const std::string> devices) {
  std::vector<Hwpt*> switched;  // on a failure these go off again, and no others
  switched.reserve(devices.size());
  const auto switch_off = [&] {
    for (Hwpt* one : switched) log_failure_of([&] { return track(*one, false); });
  };
  const OnThrow undo(switch_off);
  for (const std::string& device : devices) {
    Hwpt* const hwpt = hwpt_of(device);
    if (hwpt == nullptr || hwpt->is_tracked) continue;
    if (auto on = track(*hwpt, true); !on) {
      switch_off();
      return on;
    }
    switched.push_back(hwpt);
  }
  return {};
}

Result<void> HwptDirtyLog::stop() {
  Result<void> stopped;
  for (Hwpt& hwpt : *hwpts_) {
    if (!hwpt.is_tracked) continue;
    auto off = track(hwpt, false);
    hwpt.is_tracked = false;
    if (stopped) stopped = std::move(off);
  }
  return stopped;
}

// The kernel only ever sets bits, so that the page tables' answers merge by themselves. It takes a range with a hole
// for a success, and leaves out what comes behind the hole (iommu_read_and_clear_dirty drops the error, Linux 7.3): so
// nobody may ask for what is not mapped.
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
  for (const Hwpt& hwpt : *hwpts_) {
    const int result = hwpt.is_tracked ? get_bitmap(hwpt, request, after) : 0;
    if (result < 0) {
      return call_failure(iommu::hwpt_get_dirty_bitmap.symbol,
                          {.result = result,
                           .object = fmt::format("dirty pages of {} in HWPT {}", to_string(request.range), hwpt.id())});
    }
  }
  return {};
}

// What the page table forgets with the mapping need not be cleared before.
Result<void> HwptDirtyLog::prepare_unmap(const DirtyRequest& mapping) { return collect(mapping, AfterQuery::keep); }

int HwptDirtyLog::unmap(const DirtyRequest& mapping) {
  iommu_ioas_unmap unmap{
      .size = sizeof unmap, .ioas_id = ioas_, .iova = mapping.range.first.value, .length = mapping.range.length()};
  return iommu::ioas_unmap(iommufd_->kernel(), iommufd_->fd(), unmap);
}

}  // namespace postern::iommufd
