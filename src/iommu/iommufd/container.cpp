// SPDX-License-Identifier: Apache-2.0
// IommufdContainer: mapping, attaching and limits by the ioctls of /dev/iommu and of cdevs.
#include "iommu/iommufd/container.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.hpp"
#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/requirements.hpp"
#include "iommu/address_space.hpp"
#include "iommu/own_group.hpp"
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

// Of a device that was given with its id.
tl::unexpected<Error> bound_elsewhere(std::string_view call, int code, const AttachedCdev& device) {
  return failure({.code = code,
                  .kind = ErrorKind::invalid_argument,
                  .operation = std::string(call),
                  .object = device.host.name,
                  .reason = fmt::format("fd {} was given as device {} of an iommufd, but not of this one",
                                        device.fd.get(), device.id),
                  .remedy = RemedyCode::give_iommufd_of_device});
}

// Returns 0 or a negated errno, or the error of turning dirty tracking on, which comes before the device.
Result<int> attach_to(Hwpt& hwpt, const AttachedCdev& device, bool is_tracked) {
  const bool turns_on = is_tracked && !hwpt.is_tracked();
  if (turns_on) POSTERN_TRY(hwpt.track(true));
  const int result = attach_page_table(device.fd.fd(), hwpt.id());
  if (result < 0 && turns_on) log_failure_of([&] { return hwpt.track(false); });
  return result;
}

}  // namespace

IommufdContainer::IommufdContainer(std::shared_ptr<Iommufd> iommufd, ObjectId ioas)
    : BackendContainer(iommufd->kernel(),
                       {.name = "iommufd", .unmap = iommu::ioas_unmap.symbol, .when_empty = WhenEmpty::keeps_mappings}),
      iommufd_(std::move(iommufd)),
      ioas_(ioas),
      dirty_log_(*iommufd_, ioas_, *this) {}

IommufdContainer::~IommufdContainer() {
  log_failure_of([this] { return IommufdContainer::close(); });
}

CallResult IommufdContainer::map(Iova iova, std::uint64_t length, void* address, Access access) {
  iommu_ioas_map map{.size = sizeof map,
                     .flags = map_flags(access),
                     .ioas_id = ioas_,
                     .__reserved = 0,
                     .user_va = reinterpret_cast<std::uintptr_t>(address),
                     .length = length,
                     .iova = iova.value};
  return {.result = iommu::ioas_map(kernel(), iommufd_->fd(), map), .call = iommu::ioas_map.symbol.data()};
}

CallResult IommufdContainer::map_file(Iova iova, const Memory& memory, Access access) {
  iommu_ioas_map_file map{.size = sizeof map,
                          .flags = map_flags(access),
                          .ioas_id = ioas_,
                          .fd = memory.file()->get(),
                          .start = memory.offset(),
                          .length = memory.length(),
                          .iova = iova.value};
  return {.result = iommu::ioas_map_file(kernel(), iommufd_->fd(), map), .call = iommu::ioas_map_file.symbol.data()};
}

CallResult IommufdContainer::copy(const BackendContainer& from, IovaRange range, Access access) {
  const auto& original = static_cast<const IommufdContainer&>(from);
  if (original.iommufd_->identity() != iommufd_->identity()) return {.result = -ENOTTY};
  iommu_ioas_copy copy{.size = sizeof copy,
                       .flags = map_flags(access),
                       .dst_ioas_id = ioas_,
                       .src_ioas_id = original.ioas_,
                       .length = range.length(),
                       .dst_iova = range.first.value,
                       .src_iova = range.first.value};
  return {.result = iommu::ioas_copy(kernel(), iommufd_->fd(), copy), .call = iommu::ioas_copy.symbol.data()};
}

int IommufdContainer::unmap(Iova iova, std::uint64_t length) {
  iommu_ioas_unmap unmap{.size = sizeof unmap, .ioas_id = ioas_, .iova = iova.value, .length = length};
  return iommu::ioas_unmap(kernel(), iommufd_->fd(), unmap);
}

int IommufdContainer::unmap_all() {
  // Iova 0 with the largest length is everything (iommufd_ioas_unmap, Linux 6.2); an empty IOAS may
  // answer ENOENT.
  iommu_ioas_unmap unmap{.size = sizeof unmap, .ioas_id = ioas_, .iova = 0, .length = ~std::uint64_t{0}};
  const int result = iommu::ioas_unmap(kernel(), iommufd_->fd(), unmap);
  return result == -ENOENT ? 0 : result;
}

BackendContainer::Explanation IommufdContainer::explain_map(CallResult failed, IovaRange /*range*/,
                                                            const void* address) const {
  // It pins what it maps (iopt_map_user_pages), and a BAR has no pages to pin.
  if (failed.result != -EFAULT || address == nullptr) return {};
  return {.remedy = RemedyCode::map_bar_as_dma_buf};
}

Result<Hwpt*> IommufdContainer::attach_hwpt(const AttachedCdev& device, bool is_tracked) {
  const std::string& name = device.host.name;
  const bool tracks_dirty = device.hardware.tracks_dirty;
  const bool is_told = device.is_told && !device.is_connected;  // and it is not known whether that is true
  for (Hwpt& hwpt : hwpts_) {
    if (hwpt.tracks_dirty() != tracks_dirty || is_told) continue;
    const int result = POSTERN_TRY(attach_to(hwpt, device, is_tracked));
    if (result == 0) return &hwpt;
    // EINVAL: this page table does not suit the device's IOMMU, which gets another one.
    if (result == -EINVAL) continue;
    CallFailed what{.result = result, .object = name};
    explain_reserved(what);
    return call_failure(vfio::device_attach_pt.symbol, std::move(what));
  }
  auto made = Hwpt::allocate(iommufd_, ioas_, device.id, tracks_dirty);
  const bool mediated =
      !made && !device.is_connected && (made.error().code() == ENOENT || made.error().code() == EOPNOTSUPP);
  if (!made && is_told && mediated) return bound_elsewhere(made.error().operation(), made.error().code(), device);
  if (!made && !mediated) return failure_of(made);
  // A mediated device has no page table in an IOMMU: its driver accesses memory through the IOAS.
  const ObjectId page_table = mediated ? ioas_ : made->id();
  std::list<Hwpt> added;  // allocated before a device is on it
  if (!mediated) added.push_back(std::move(*made));
  const int result = mediated ? attach_page_table(device.fd.fd(), page_table)
                              : POSTERN_TRY(attach_to(added.back(), device, is_tracked));
  if (result < 0) {
    CallFailed what{.result = result,
                    .object = fmt::format("{} to {} {}", name, mediated ? "IOAS" : "HWPT", page_table)};
    if (result == -ENOENT && is_told) return bound_elsewhere(vfio::device_attach_pt.symbol, ENOENT, device);
    if (result == -EPERM) explain_unsafe_interrupts(what, kernel(), module);
    explain_reserved(what);
    // All devices of a group are on one page table (iommufd_hw_pagetable_attach, Linux 6.4).
    if (result == -EINVAL && device.host.iommu_group) {
      (void)explain_own_group(what, kernel(), *device.host.iommu_group, name);
    }
    return call_failure(vfio::device_attach_pt.symbol, std::move(what));
  }
  if (mediated) return nullptr;
  // An iommufd has small ids, so another one may have such a page table, too; but then this one has no device.
  if (is_told && added.back().destroy()) {
    log_failure(detach_page_table(device.fd.fd(), name));
    return bound_elsewhere("", EINVAL, device);
  }
  hwpts_.splice(hwpts_.end(), added);
  return &hwpts_.back();
}

Result<std::unique_ptr<Attached>> IommufdContainer::open(const HostDevice& device,
                                                         const std::shared_ptr<const KvmVfioDevice>& kvm) const {
  auto bound = POSTERN_TRY(open_cdev(iommufd_, device, kvm));
  const Hardware hardware = iommufd_->hardware_of(bound.id);
  return std::make_unique<AttachedCdev>(device, std::move(bound), hardware);
}

Result<void> IommufdContainer::connect(Attached& device) {
  auto& connecting = static_cast<AttachedCdev&>(device);
  connecting.hwpt = POSTERN_TRY(attach_hwpt(connecting, false));
  connecting.is_connected = true;
  return {};
}

Result<void> IommufdContainer::check_take_over(const Attached& device, const BackendContainer& from,
                                               const std::string& object) const {
  CallFailed what{.object = object, .remedy = RemedyCode::attach_anew};
  const auto is_of_its_group = [&](const auto& other) {
    return other.get() != &device && other->host.iommu_group && other->host.iommu_group == device.host.iommu_group;
  };
  const auto& others = from.space().devices();
  const auto mate = std::find_if(others.begin(), others.end(), is_of_its_group);
  if (iommufd_->identity() != static_cast<const IommufdContainer&>(from).iommufd_->identity()) {
    what.result = -EINVAL;
    what.reason = "the containers have /dev/iommu opened twice, and a device is bound to one of them while it is open";
    what.remedy.add(RemedyCode::open_both_with_one_iommufd);
  } else if (cdev_of(device).hwpt == nullptr) {
    // iommufd_access_change_ioas tells it that all of its memory is unmapped.
    what.result = -EOPNOTSUPP;
    what.reason = "it has no page table in an IOMMU that could be replaced: its driver accesses memory itself";
  } else if (mate != others.end()) {
    // iommufd_device_do_replace moves the whole group.
    what.result = -EBUSY;
    what.reason = fmt::format("{} of the same IOMMU group {} is in its container, too, and would move with it",
                              (*mate)->host.name, to_string(*device.host.iommu_group));
    what.remedy = remedy<RemedyCode::detach_group_mate>((*mate)->host.name);
  } else {
    return {};
  }
  return refusal(std::move(what));
}

// The kernel replaces the page table of a device that has one (iommufd_device_replace).
Result<void> IommufdContainer::take_over(Attached& device, bool is_tracked) {
  auto& coming = static_cast<AttachedCdev&>(device);
  coming.hwpt = POSTERN_TRY(attach_hwpt(coming, is_tracked));
  return {};
}

// Destroys the page tables that no device is on.
Result<void> IommufdContainer::release_unused() {
  Result<void> released;
  hwpts_.remove_if([&](Hwpt& hwpt) {
    const auto is_on_it = [&](const auto& device) { return cdev_of(*device).hwpt == &hwpt; };
    if (std::any_of(space().devices().begin(), space().devices().end(), is_on_it)) return false;
    auto destroyed = hwpt.destroy();
    if (released) released = std::move(destroyed);
    return true;
  });
  return released;
}

Result<void> IommufdContainer::detach(Attached& device) {
  auto& leaving = static_cast<AttachedCdev&>(device);
  auto detached = leaving.is_connected ? detach_page_table(device.fd.fd(), device.host.name) : Result<void>();
  log_failure(leaving.kvm_file.remove());
  device.fd.reset();  // unbinds it from the iommufd, and takes it off the page table if the ioctl could not
  auto released = release_unused();
  return detached ? std::move(released) : std::move(detached);
}

Result<void> IommufdContainer::close() {
  if (ioas_ == 0) return {};
  auto destroyed = iommufd_->destroy(ioas_, "IOAS");
  if (destroyed) ioas_ = 0;  // otherwise destroyed later
  return destroyed;
}

Result<ContainerLimits> IommufdContainer::read_limits() {
  auto iova = POSTERN_TRY(iommufd_->iova_limits(ioas_));
  // Without a page table in an IOMMU the kernel requires no alignment, but memory is pinned by pages even then.
  const std::uint64_t smallest =
      std::max<std::uint64_t>(iova.alignment, static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
  // The kernel reports the alignment, but not the page sizes: these are in the hardware registers of each device's
  // IOMMU.
  std::uint64_t larger = space().devices().empty() ? 0 : ~std::uint64_t{0};
  for (const auto& device : space().devices()) larger &= cdev_of(*device).hardware.page_sizes;
  return ContainerLimits{.usable_ranges = std::move(iova.ranges),
                         .page_sizes = smallest | (larger & ~(smallest - 1)),
                         .mapping_limit = std::nullopt};
}

Container::Properties IommufdContainer::properties() const {
  std::vector<std::string> hwpts;
  for (const Hwpt& hwpt : hwpts_) hwpts.push_back(std::to_string(hwpt.id()));
  return {{"IOAS", std::to_string(ioas_)}, {"HWPT", list_text(hwpts)}};
}

}  // namespace postern::iommufd
