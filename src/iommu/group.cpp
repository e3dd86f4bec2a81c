// SPDX-License-Identifier: Apache-2.0
// Group: an open /dev/vfio/N.
#include "iommu/group.hpp"

#include <fmt/format.h>

#include "host/node.hpp"
#include "host/requirements.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

std::string group_path(GroupId id) { return "/dev/vfio/" + to_string(id); }
std::string group_text(GroupId id) { return "IOMMU group " + to_string(id); }

tl::unexpected<Error> not_viable(Kernel& kernel, GroupId id, const std::string& device) {
  const auto group = find_iommu_group(kernel, id);
  const GroupAdvice advice = group ? advise_on_group(kernel, *group, device) : GroupAdvice();
  return refusal({.result = -EPERM,
                  .object = fmt::format("{} of {}", group_text(id), device),
                  .reason = group ? obstacles_text(*group, advice) : "the group is not viable",
                  .remedy = advice.remedy});
}

}  // namespace

Result<Group> Group::open(Kernel& kernel, GroupId id, const std::string& device) {
  auto fd = open_node(kernel, group_path(id), fmt::format("{} of {}", group_text(id), device));
  if (!fd) return failure_of(fd);
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  if (const int result = vfio::group_get_status(kernel, fd->get(), status); result < 0) {
    return call_failure(vfio::group_get_status.symbol, {.result = result, .object = group_text(id)});
  }
  if ((status.flags & VFIO_GROUP_FLAGS_VIABLE) == 0) return not_viable(kernel, id, device);
  return Group(id, std::move(*fd));
}

Result<void> Group::set_container(const Fd& container) {
  const int fd = container.get();
  if (const int result = vfio::group_set_container(fd_.kernel(), fd_.get(), fd); result < 0) {
    return call_failure(
        vfio::group_set_container.symbol,
        {.result = result,
         .object = group_text(id_),
         // sPAPR says so by EPERM under a hypervisor, and with version 1 by EBUSY (tce_iommu_attach_group).
         .reason =
             result == -EINVAL || result == -EPERM || result == -EBUSY
                 ? "the group is in a container already, or this IOMMU cannot share the container with those that "
                   "are in it"
                 : "",
         .remedy = "attach the device to a container of its own"});
  }
  return {};
}

Result<void> Group::unset_container() {
  const int result = vfio::group_unset_container(fd_.kernel(), fd_.get());
  // EINVAL: the kernel has taken it out itself, when the last of its devices was unbound (vfio_device_remove_group).
  if (result < 0 && result != -EINVAL) {
    return call_failure(vfio::group_unset_container.symbol,
                        {.result = result,
                         .object = group_text(id_),
                         .reason = result == -EBUSY ? "a device of the group is still open" : ""});
  }
  return {};
}

Result<Fd> Group::open_device(const HostDevice& device) const {
  // Options stand behind the name (vfio_pci_core_match).
  const std::string name =
      device.vf_token ? fmt::format("{} vf_token={}", device.name, to_string(*device.vf_token)) : device.name;
  const int fd = vfio::group_get_device_fd(fd_.kernel(), fd_.get(), *name.c_str());
  if (fd >= 0) return Fd(fd_.kernel(), fd);
  CallFailed what{.result = fd, .object = fmt::format("{} in {}", device.name, group_text(id_))};
  if (fd == -ENODEV) {
    what.reason = "the group has no device of this name that is bound to VFIO";
    what.remedy = fmt::format("bind it with \"postern bind {}\"", device.name);
  } else {
    (void)explain_vf_token(what, fd_.kernel(), device);
  }
  return call_failure(vfio::group_get_device_fd.symbol, std::move(what));
}

Result<void> probe_group(Kernel& kernel, const HostDevice& device) {
  auto group = require_group(kernel, device);
  if (!group) return failure_of(group);
  if (auto bound = require_vfio_driver(device); !bound) return bound;
  return probe_node(kernel, group_path(*group), device.name);
}

}  // namespace postern
