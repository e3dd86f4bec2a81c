// SPDX-License-Identifier: Apache-2.0
// A device's cdev, /dev/vfio/devices/vfioN: finds it, opens it, and binds it to an iommufd.
#include "iommu/iommufd/cdev.hpp"

#include <fmt/format.h>

#include <array>

#include "base/remedy.hpp"
#include "host/requirements.hpp"
#include "iommu/own_group.hpp"
#include "kernel/vfio.hpp"

namespace postern::iommufd {
namespace {

tl::unexpected<Error> bind_failure(Kernel& kernel, int result, const HostDevice& device) {
  CallFailed what{.result = result, .object = device.name};
  auto group = device.iommu_group ? find_iommu_group(kernel, *device.iommu_group) : Result<IommuGroup>(IommuGroup{});
  if (group && !group->viable()) {
    // iommufd_device_bind claims the group for user space, which fails if a driver uses DMA (Linux 6.0).
    GroupAdvice advice = advise_on_group(kernel, *group, device.name);
    what.kind = ErrorKind::group_not_viable;
    what.reason = blockers_text(*group, advice);
    what.remedy = std::move(advice.remedy);
  } else if (result == -EPERM) {
    explain_unsafe_interrupts(what, kernel, module);
    // The same errno from iommu_device_claim_dma_owner (Linux 6.0).
    if (group && group->members.size() > 1) {
      what.reason = "another process has a device of its group; or " + what.reason;
      const Remedies otherwise = std::move(what.remedy);
      what.remedy = remedy<RemedyCode::find_holder>("/dev/vfio/devices/*");
      what.remedy.add(otherwise);
    }
  } else if (explain_vf_token(what, kernel, device)) {
    // That error is complete.
  } else if (result == -EBUSY || result == -EINVAL) {
    // vfio_df_open (Linux 6.6) returns EINVAL for a second open of the cdev, and EBUSY if the group is open.
    what.kind = ErrorKind::in_use;
    what.reason =
        "the device, or another one of its group, is already in use, through its cdev or its group; a BAR that is "
        "still "
        "mapped keeps a device in use, too";
    what.remedy = remedy<RemedyCode::find_holder>(device.cdev->path + " /dev/vfio/*");
    // EBUSY: its group is open.
    if (result == -EBUSY && device.iommu_group) {
      (void)explain_own_group(what, kernel, *device.iommu_group, device.name);
    }
  }
  if (!group) what.causes.push_back(std::move(group).error());  // another member may be the reason
  return call_failure(vfio::device_bind_iommufd.symbol, std::move(what));
}

Node node_of(const VfioCdev& cdev) {
  return {.path = cdev.path,
          .sysfs = "/sys/class/vfio-dev/" + cdev.name,
          .remedy = remedy<RemedyCode::bind_for_node>("CONFIG_VFIO_DEVICE_CDEV"),
          .number = cdev.number};
}

// vfio0 may belong to another device by now, or the node may be stale: compares the device number.
Result<void> require_number(Kernel& kernel, const HostDevice& device) {
  FileStatus node;
  const int known = kernel.status(device.cdev->path, node);
  if (known < 0) {
    return call_failure("stat", {.result = known,
                                 .object = device.name,
                                 .reason = fmt::format("it is unknown whether {} is its node", device.cdev->path)});
  }
  if (node.device == *device.cdev->number) return {};
  return refusal({.result = -ESTALE,
                  .object = device.name,
                  .reason = fmt::format("{} is another device's node", device.cdev->path),
                  .remedy = remedy<RemedyCode::refresh_node>(device.cdev->path)});
}

// Checks that a cdev that was given with its id is bound: before that it answers nothing else
// (vfio_device_fops_unl_ioctl).
Result<void> require_bound(const Fd& fd, const std::string& device) {
  vfio_device_info info{};
  info.argsz = sizeof info;
  CallFailed what{.result = vfio::device_get_info(fd.kernel(), fd.get(), info), .object = device};
  if (what.result >= 0) return {};
  if (what.result == -EINVAL) {
    what.reason = fmt::format("fd {} was given with an id, but is bound to no iommufd", fd.get());
    what.remedy = RemedyCode::omit_iommufd_id;
  }
  return call_failure(vfio::device_get_info.symbol, std::move(what));
}

// Takes the binding that a cdev already has.
Result<void> take_binding(BoundDevice& bound, const std::shared_ptr<Iommufd>& iommufd, const std::string& device) {
  bound.id = bound.given.iommufd_id();
  bound.is_told = !bound.given.was_bound_here();
  if (bound.is_told) return require_bound(bound.fd.fd(), device);
  if (bound.given.is_bound_to(iommufd->identity())) return {};
  return refusal(
      {.result = -EINVAL,
       .object = device,
       .reason = fmt::format("fd {} was given, and is bound to another iommufd, which lasts as long as it is "
                             "open",
                             bound.fd.get()),
       .remedy = RemedyCode::attach_with_its_iommufd});
}

Result<void> bind(BoundDevice& bound, const std::shared_ptr<Iommufd>& iommufd, const HostDevice& device) {
  vfio_device_bind_iommufd bind{};
  bind.argsz = sizeof bind;
  bind.iommufd = iommufd->fd();
  if (device.vf_token) {
    bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
    bind.token_uuid_ptr = reinterpret_cast<std::uintptr_t>(device.vf_token->bytes.data());
  }
  if (const int result = vfio::device_bind_iommufd(iommufd->kernel(), bound.fd.get(), bind); result < 0) {
    return bind_failure(iommufd->kernel(), result, device);
  }
  bound.id = bind.out_devid;
  if (bound.given) bound.given.bound_to(iommufd->identity(), bound.id);
  return {};
}

constexpr std::array<Requirement, 3> of_cdev = {in_group, vfio_driver, cdev};

}  // namespace

Result<std::string> find_cdev(const Requirement& /*requirement*/, Lookup& lookup) {
  const HostDevice& device = *lookup.device;
  POSTERN_TRY(require_vfio_driver(device));
  if (!device.cdev || !device.cdev->number) {
    return refusal({.result = -ENODEV,
                    .kind = ErrorKind::unavailable,
                    .object = device.name,
                    .reason = device.cdev ? fmt::format("vfio-dev/{} has no \"dev\" file: the kernel is built without "
                                                        "CONFIG_VFIO_DEVICE_CDEV",
                                                        device.cdev->name)
                                          : "it has no vfio-dev folder in sysfs: the kernel is older than 6.1",
                    .remedy = RemedyCode::use_kernel_with_cdevs});
  }
  return device.cdev->name;
}

Node node_of_cdev(const Lookup& lookup) { return node_of(*lookup.device->cdev); }

bool has_cdev(const Lookup& lookup) { return lookup.device->cdev && lookup.device->cdev->number; }

Result<std::string> find_cdev_node(const Requirement& /*requirement*/, Lookup& lookup) {
  POSTERN_TRY(look_up_node(node_of_cdev(lookup), lookup));
  if (lookup.opens_device_nodes && !lookup.device->fd) POSTERN_TRY(require_number(lookup.kernel, *lookup.device));
  return std::string();
}

Result<BoundDevice> open_cdev(const std::shared_ptr<Iommufd>& iommufd, const HostDevice& device,
                              const std::shared_ptr<const KvmVfioDevice>& kvm) {
  Kernel& kernel = iommufd->kernel();
  POSTERN_TRY(require_of_device(of_cdev, kernel, device));
  BoundDevice bound{.fd = POSTERN_TRY(open_node(kernel, node_of(*device.cdev), device.name, given_fd(device)))};
  if (device.fd) {
    bound.given = GivenFdUse(device.fd);
    if (!bound.given) {
      return refusal({.result = -EBUSY,
                      .object = device.name,
                      .reason = fmt::format("fd {} was given, and its device is attached already", bound.fd.get())});
    }
  } else {
    POSTERN_TRY(require_number(kernel, device));
  }
  if (kvm) bound.kvm_file = POSTERN_TRY(KvmFile::add(kvm, bound.fd.get()));
  const bool is_bound = bound.given && bound.given.iommufd_id() != 0;
  POSTERN_TRY(is_bound ? take_binding(bound, iommufd, device.name) : bind(bound, iommufd, device));
  return bound;
}

}  // namespace postern::iommufd
