// SPDX-License-Identifier: Apache-2.0
// Hwpt: one IO page table of an IOAS, and the devices on it.
#include "iommu/iommufd/hwpt.hpp"

#include <fmt/format.h>

#include <utility>

#include "base/log.hpp"
#include "kernel/iommufd.hpp"
#include "kernel/vfio.hpp"

namespace postern::iommufd {

void explain_reserved(CallFailed& what) {
  if (what.result != -EADDRINUSE) return;
  what.kind = ErrorKind::cannot_share;
  what.reason = "a mapping overlaps addresses that are reserved for this device";
  what.remedy = Remedies(RemedyCode::unmap_first).add(RemedyCode::attach_to_new_container);
}

Result<Hwpt> Hwpt::allocate(std::shared_ptr<Iommufd> iommufd, ObjectId ioas, ObjectId device, bool tracks_dirty) {
  iommu_hwpt_alloc alloc{};
  alloc.size = sizeof alloc;
  alloc.flags = tracks_dirty ? IOMMU_HWPT_ALLOC_DIRTY_TRACKING : 0;
  alloc.dev_id = device;
  alloc.pt_id = ioas;
  alloc.data_type = IOMMU_HWPT_DATA_NONE;
  if (const int result = iommu::hwpt_alloc(iommufd->kernel(), iommufd->fd(), alloc); result < 0) {
    CallFailed what{.result = result, .object = fmt::format("HWPT of IOAS {}", ioas)};
    explain_reserved(what);
    return call_failure(iommu::hwpt_alloc.symbol, std::move(what));
  }
  return Hwpt(std::move(iommufd), alloc.out_hwpt_id, tracks_dirty);
}

Hwpt::Hwpt(Hwpt&& other) noexcept
    : iommufd_(std::move(other.iommufd_)),
      id_(std::exchange(other.id_, 0)),
      tracks_dirty_(other.tracks_dirty_),
      is_tracked_(other.is_tracked_) {}

Hwpt::~Hwpt() {
  log_failure_of([this] { return destroy(); });
}

Result<void> Hwpt::destroy() {
  if (id_ == 0) return {};
  auto destroyed = iommufd_->destroy(id_, "HWPT");
  if (destroyed) id_ = 0;  // otherwise destroyed later
  return destroyed;
}

Result<void> Hwpt::track(bool on) {
  is_tracked_ = false;
  iommu_hwpt_set_dirty_tracking set{};
  set.size = sizeof set;
  set.flags = on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0;
  set.hwpt_id = id_;
  if (const int result = iommu::hwpt_set_dirty_tracking(iommufd_->kernel(), iommufd_->fd(), set); result < 0) {
    return call_failure(
        iommu::hwpt_set_dirty_tracking.symbol,
        {.result = result, .object = fmt::format("turn dirty tracking of HWPT {} {}", id_, on ? "on" : "off")});
  }
  is_tracked_ = on;
  return {};
}

int attach_page_table(const Fd& device, ObjectId page_table) {
  vfio_device_attach_iommufd_pt attach{};
  attach.argsz = sizeof attach;
  attach.pt_id = page_table;
  return vfio::device_attach_pt(device.kernel(), device.get(), attach);
}

Result<void> detach_page_table(const Fd& device, const std::string& name) {
  vfio_device_detach_iommufd_pt detach{};
  detach.argsz = sizeof detach;
  if (const int result = vfio::device_detach_pt(device.kernel(), device.get(), detach); result < 0) {
    return call_failure(vfio::device_detach_pt.symbol, {.result = result, .object = name});
  }
  return {};
}

}  // namespace postern::iommufd
