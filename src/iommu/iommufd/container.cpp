// SPDX-License-Identifier: Apache-2.0
// IommufdContainer: mapping, attaching and limits by the ioctls of /dev/iommu and of cdevs.
#include "iommu/iommufd/container.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "base/words.hpp"
#include "host/requirements.hpp"
#include "kernel/iommufd.hpp"
#include "kernel/vfio.hpp"

namespace postern::iommufd {
namespace {

constexpr std::uint32_t map_flags(Access access) {
  std::uint32_t flags = IOMMU_IOAS_MAP_FIXED_IOVA;
  if (access != Access::write) flags |= IOMMU_IOAS_MAP_READABLE;
  if (access != Access::read) flags |= IOMMU_IOAS_MAP_WRITEABLE;
  return flags;
}

}  // namespace

IommufdContainer::IommufdContainer(std::shared_ptr<Iommufd> iommufd, ObjectId ioas)
    : Container(iommufd->kernel(), {.backend = "iommufd",
                                    .map = iommu::ioas_map.symbol,
                                    .unmap = iommu::ioas_unmap.symbol,
                                    .when_empty = WhenEmpty::keeps_mappings}),
      iommufd_(std::move(iommufd)),
      ioas_(ioas),
      dirty_log_(*iommufd_, ioas_, hwpts_, attached_),
      dirty_tracker_(*this, dirty_log_) {}

IommufdContainer::~IommufdContainer() {
  log_failure_of([this] { return IommufdContainer::do_close(); });
}

int IommufdContainer::do_map(Iova iova, std::uint64_t length, void* address, Access access) {
  iommu_ioas_map map{.size = sizeof map,
                     .flags = map_flags(access),
                     .ioas_id = ioas_,
                     .__reserved = 0,
                     .user_va = reinterpret_cast<std::uintptr_t>(address),
                     .length = length,
                     .iova = iova.value};
  return iommu::ioas_map(kernel(), iommufd_->fd(), map);
}

int IommufdContainer::do_unmap(Iova iova, std::uint64_t length) {
  iommu_ioas_unmap unmap{.size = sizeof unmap, .ioas_id = ioas_, .iova = iova.value, .length = length};
  return iommu::ioas_unmap(kernel(), iommufd_->fd(), unmap);
}

int IommufdContainer::do_unmap_all() {
  // Iova 0 with the largest length is everything (iommufd_ioas_unmap, Linux 6.2); an empty IOAS may
  // answer ENOENT.
  iommu_ioas_unmap unmap{.size = sizeof unmap, .ioas_id = ioas_, .iova = 0, .length = ~std::uint64_t{0}};
  const int result = iommu::ioas_unmap(kernel(), iommufd_->fd(), unmap);
  return result == -ENOENT ? 0 : result;
}

Result<Hwpt*> IommufdContainer::attach_hwpt(const BoundDevice& bound, const std::string& name, bool tracks_dirty) {
  for (Hwpt& hwpt : hwpts_) {
    if (hwpt.tracks_dirty() != tracks_dirty) continue;
    const int result = attach_page_table(bound.fd, hwpt.id());
    if (result == 0) return &hwpt;
    // EINVAL is an IOMMU that this page table does not suit; it gets one of its own.
    if (result != -EINVAL) return call_failure(vfio::device_attach_pt.symbol, {.result = result, .object = name});
  }
  auto made = Hwpt::allocate(iommufd_, ioas_, bound.id, tracks_dirty);
  const bool mediated = !made && (made.error().code() == ENOENT || made.error().code() == EOPNOTSUPP);
  if (!made && !mediated) return failure_of(made);
  // A mediated device has no page table in an IOMMU: its driver reaches memory through the IOAS itself.
  const ObjectId page_table = mediated ? ioas_ : made->id();
  std::list<Hwpt> added;  // its place is made before a device is on it
  if (!mediated) added.push_back(std::move(*made));
  if (const int result = attach_page_table(bound.fd, page_table); result < 0) {
    CallFailed what{.result = result,
                    .object = fmt::format("{} to {} {}", name, mediated ? "IOAS" : "HWPT", page_table)};
    if (result == -EPERM) explain_unsafe_interrupts(what, kernel(), "iommufd");
    return call_failure(vfio::device_attach_pt.symbol, std::move(what));
  }
  if (mediated) return nullptr;
  hwpts_.splice(hwpts_.end(), added);
  return &hwpts_.back();
}

Result<Fd> IommufdContainer::do_attach(const HostDevice& device) {
  auto bound = open_cdev(*iommufd_, device);
  if (!bound) return failure_of(bound);
  const Hardware hardware = iommufd_->hardware_of(bound->id);
  AttachedDevice attached{.name = device.name, .page_sizes = hardware.page_sizes, .hwpt = nullptr};
  attached_.reserve(attached_.size() + 1);
  auto hwpt = attach_hwpt(*bound, device.name, hardware.tracks_dirty);
  if (!hwpt) return failure_of(hwpt);
  attached.hwpt = *hwpt;
  if (*hwpt != nullptr) ++(*hwpt)->users;
  attached_.push_back(std::move(attached));
  return std::move(bound->fd);
}

Result<void> IommufdContainer::do_detach(const std::string& device, Fd fd) {
  auto detached = detach_page_table(fd, device);
  fd.reset();  // unbinds it from the iommufd, and takes it off the page table if the ioctl could not
  const auto leaving =
      std::find_if(attached_.begin(), attached_.end(), [&](const auto& attached) { return attached.name == device; });
  Hwpt* hwpt = leaving->hwpt;
  attached_.erase(leaving);
  if (hwpt == nullptr || --hwpt->users > 0) return detached;
  auto destroyed = hwpt->destroy();
  hwpts_.remove_if([&](const Hwpt& candidate) { return &candidate == hwpt; });
  return detached ? std::move(destroyed) : std::move(detached);
}

Result<void> IommufdContainer::do_close() {
  if (ioas_ == 0) return {};
  auto destroyed = iommufd_->destroy(ioas_, "IOAS");
  if (destroyed) ioas_ = 0;  // otherwise it is tried again
  return destroyed;
}

Result<ContainerLimits> IommufdContainer::read_limits() {
  auto iova = iommufd_->iova_limits(ioas_);
  if (!iova) return failure_of(iova);
  // Without an IOMMU's page table the kernel asks for no alignment at all; memory is pinned by pages even so.
  const std::uint64_t smallest =
      std::max<std::uint64_t>(iova->alignment, static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
  // The kernel tells the alignment, not the page sizes: those that every device's IOMMU has are in its hardware's
  // registers.
  std::uint64_t larger = attached_.empty() ? 0 : ~std::uint64_t{0};
  for (const AttachedDevice& attached : attached_) larger &= attached.page_sizes;
  return ContainerLimits{.usable_ranges = std::move(iova->ranges),
                         .page_sizes = smallest | (larger & ~(smallest - 1)),
                         .mapping_limit = std::nullopt};
}

Container::Facts IommufdContainer::facts() const {
  std::vector<std::string> hwpts;
  for (const Hwpt& hwpt : hwpts_) hwpts.push_back(std::to_string(hwpt.id()));
  return {{"IOAS", std::to_string(ioas_)}, {"HWPT", list_text(hwpts)}};
}

}  // namespace postern::iommufd
