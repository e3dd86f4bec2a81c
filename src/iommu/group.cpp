// SPDX-License-Identifier: Apache-2.0
// Group: an open /dev/vfio/N.
#include "iommu/group.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/remedy.hpp"
#include "host/node.hpp"
#include "host/requirements.hpp"
#include "iommu/own_group.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

Node node_of(GroupId id) {
  const std::string name = to_string(id);
  return {.path = "/dev/vfio/" + name,
          .sysfs = "/sys/class/vfio/" + name,
          .remedy = remedy<RemedyCode::bind_for_node>("CONFIG_VFIO_GROUP")};
}
std::string group_text(GroupId id) { return "IOMMU group " + to_string(id); }

tl::unexpected<Error> not_viable(Kernel& kernel, GroupId id, const std::string& device) {
  CallFailed what{.result = -EPERM,
                  .kind = ErrorKind::group_not_viable,
                  .object = fmt::format("{} of {}", group_text(id), device),
                  .reason = "the group is not viable"};
  auto group = find_iommu_group(kernel, id);
  if (group) {
    GroupAdvice advice = advise_on_group(kernel, *group, device);
    what.reason = blockers_text(*group, advice);
    what.remedy = std::move(advice.remedy);
  } else {
    what.causes.push_back(std::move(group).error());  // why the blockers are unknown
  }
  return refusal(std::move(what));
}

// Only a descriptor that was given can be that of a group in a container.
tl::unexpected<Error> in_a_container(int fd, GroupId id, const std::string& device) {
  return refusal({.result = -EBUSY,
                  .object = fmt::format("{} of {}", group_text(id), device),
                  .reason = fmt::format("fd {} was given for it, and the group is in a container already: of this "
                                        "process, or of another that has the descriptor, too",
                                        fd),
                  .remedy = RemedyCode::attach_there_or_detach_group});
}

}  // namespace

Result<Group> Group::open(Kernel& kernel, GroupId id, const HostDevice& device) {
  auto fd = open_node(kernel, node_of(id), fmt::format("{} of {}", group_text(id), device.name), given_fd(device));
  if (!fd) {
    CallFailed what{.result = -fd.error().code(), .object = fd.error().object()};
    if (fd.error().code() == EBUSY && explain_own_group(what, kernel, id, device.name)) {
      return call_failure(fd.error().operation(), std::move(what));
    }
    return failure_of(fd);
  }
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  if (const int result = vfio::group_get_status(kernel, fd->get(), status); result < 0) {
    return call_failure(vfio::group_get_status.symbol, {.result = result, .object = group_text(id)});
  }
  if (device.fd && (status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET) != 0)
    return in_a_container(fd->get(), id, device.name);
  if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) return not_viable(kernel, id, device.name);
  return Group(id, std::move(*fd));
}

Result<void> Group::set_container(const Fd& container) {
  const int fd = container.get();
  if (const int result = vfio::group_set_container(fd_.kernel(), fd_.get(), fd); result < 0) {
    CallFailed what{.result = result, .object = group_text(id_), .remedy = RemedyCode::attach_to_new_container};
    // sPAPR returns EPERM under a hypervisor, and EBUSY with version 1 (tce_iommu_attach_group).
    if (result == -EINVAL || result == -EPERM || result == -EBUSY) {
      what.kind = ErrorKind::cannot_share;
      what.reason = "the group is already in a container, or its IOMMU cannot share this container with those in it";
    }
    return call_failure(vfio::group_set_container.symbol, std::move(what));
  }
  return {};
}

Result<void> Group::unset_container() {
  const int result = vfio::group_unset_container(fd_.kernel(), fd_.get());
  // EINVAL: the kernel has already removed it, when the last of its devices was unbound (vfio_device_remove_group).
  if (result < 0 && result != -EINVAL) {
    return call_failure(
        vfio::group_unset_container.symbol,
        {.result = result,
         .object = group_text(id_),
         .reason = result == -EBUSY ? "a device of the group is still open, or a BAR of one is mapped" : ""});
  }
  return {};
}

Result<void> Group::check_given(const HostDevice& device) const {
  if (!device.fd) return {};
  return require_node(fd_.kernel(), node_of(id_), device.fd->fd(),
                      fmt::format("{} of {}", group_text(id_), device.name));
}

Result<Fd> Group::open_device(const HostDevice& device) const {
  // Options follow the name (vfio_pci_core_match).
  const std::string name =
      device.vf_token ? fmt::format("{} vf_token={}", device.name, to_string(*device.vf_token)) : device.name;
  const int fd = vfio::group_get_device_fd(fd_.kernel(), fd_.get(), *name.c_str());
  if (fd >= 0) return Fd(fd_.kernel(), fd);
  CallFailed what{.result = fd, .object = fmt::format("{} in {}", device.name, group_text(id_))};
  if (fd == -ENODEV) {
    what.kind = ErrorKind::not_bound;
    what.reason = "the group has no device of this name that is bound to VFIO";
    what.remedy = remedy<RemedyCode::bind_to_vfio_driver>(device.name);
  } else {
    (void)explain_vf_token(what, fd_.kernel(), device);
  }
  return call_failure(vfio::group_get_device_fd.symbol, std::move(what));
}

Result<void> Group::add_to(const std::shared_ptr<const KvmVfioDevice>& kvm) {
  const bool is_added =
      std::any_of(kvm_files_.begin(), kvm_files_.end(), [&](const KvmFile& each) { return each.kvm() == kvm; });
  if (!kvm || is_added) return {};
  kvm_files_.reserve(kvm_files_.size() + 1);
  kvm_files_.push_back(POSTERN_TRY(KvmFile::add(kvm, fd_.get())));
  return {};
}

Node node_of_group(const Lookup& lookup) { return node_of(*lookup.device->iommu_group); }

bool is_in_group(const Lookup& lookup) { return lookup.device->iommu_group && !lookup.device->is_noiommu; }

Result<std::string> find_group_node(const Requirement& /*requirement*/, Lookup& lookup) {
  POSTERN_TRY(require_vfio_driver(*lookup.device));
  POSTERN_TRY(look_up_node(node_of_group(lookup), lookup));
  return std::string();
}

}  // namespace postern
