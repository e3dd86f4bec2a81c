// SPDX-License-Identifier: Apache-2.0
// KernelContainer: groups that join and leave /dev/vfio/vfio.
#include "iommu/kernel_container.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "host/node.hpp"
#include "host/requirements.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

constexpr const char* container_path = "/dev/vfio/vfio";

std::string load_text(std::string_view module) {
  return fmt::format("load the module with \"modprobe {}\"; the kernel needs CONFIG_VFIO_CONTAINER", module);
}

Result<Fd> open_container(Kernel& kernel, const std::string& object) {
  auto fd = open_node(kernel, container_path, object);
  if (!fd) return fd;
  const int api = vfio::get_api_version(kernel, fd->get());
  if (api == VFIO_API_VERSION) return fd;
  if (api < 0) return call_failure(vfio::get_api_version.symbol, {.result = api, .object = object});
  return refusal({.result = -EPROTO,
                  .object = object,
                  .reason = fmt::format("the kernel speaks another version: VFIO_GET_API_VERSION gives {}", api)});
}

}  // namespace

Result<KernelContainer::Opened> KernelContainer::open(Kernel& kernel, const Interface& interface, std::uint32_t version,
                                                      Fd node) {
  const std::string object = fmt::format("container {}", interface.backend);
  if (!node) {
    auto opened = open_container(kernel, object);
    if (!opened) return failure_of(opened);
    node = std::move(*opened);
  }
  std::vector<std::string_view> symbols;
  for (const Extension& extension : interface.extensions) {
    if (version != 0 && version != extension.version) continue;
    const int has = vfio::check_extension(kernel, node.get(), extension.number);
    if (has > 0) return Opened{std::move(node), extension};
    // No answer is no reason to take an older version.
    if (has < 0) return call_failure(vfio::check_extension.symbol, {.result = has, .object = object});
    symbols.push_back(extension.symbol);
  }
  CallFailed what{.result = -ENODEV, .object = object};
  if (symbols.empty()) {
    what.result = -EINVAL;
    what.reason = fmt::format("the backend has no version {}", version);
    what.remedy = "leave the version out";
  } else {
    what.reason = fmt::format("the kernel does not have {}", fmt::join(symbols, " or "));
    const auto power = is_power(kernel);
    if (power && *power != interface.is_for_power) {
      what.reason += *power ? ", which is not for this processor: POWER has spapr" : ", which is for POWER alone";
      what.remedy = "use another backend; \"postern backends\" lists them";
    } else {
      what.remedy = load_text(interface.module);
    }
  }
  return refusal(std::move(what));
}

Result<Fd> KernelContainer::probe(Kernel& kernel, const Interface& interface, const HostDevice* device) {
  auto node = open_container(kernel, fmt::format("backend {}", interface.backend));
  if (!node) return node;
  if (auto usable = device != nullptr ? probe_group(kernel, *device) : require_iommu(kernel); !usable)
    return failure_of(usable);
  // The node is there without the module that knows the host's IOMMU.
  auto opened = open(kernel, interface, 0, std::move(*node));
  if (!opened) return failure_of(opened);
  return std::move(opened->fd);
}

bool KernelContainer::has_extension(unsigned long number) const {
  return vfio::check_extension(fd_.kernel(), fd_.get(), number) > 0;
}

bool KernelContainer::has_group_of(const HostDevice& device) const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [&](const Group& group) { return group.id() == device.iommu_group; });
}

std::string KernelContainer::groups_text() const {
  std::vector<std::string> groups;
  for (const Group& group : groups_) groups.push_back(to_string(group.id()));
  return list_text(groups);
}

Result<Group*> KernelContainer::join(const HostDevice& device, GroupId id) {
  for (Group& group : groups_) {
    if (group.id() == id) return &group;
  }
  auto opened = Group::open(fd_.kernel(), id, device.name);
  if (!opened) return failure_of(opened);
  std::list<Group> joining;  // its place is made before the kernel is asked
  Group& group = joining.emplace_back(std::move(*opened));
  if (auto joined = group.set_container(fd_); !joined) return failure_of(joined);
  if (groups_.empty()) {
    if (auto ready = hooks_.set_up(device); !ready) {
      log_failure(group.unset_container());
      return failure_of(ready);
    }
  }
  groups_.splice(groups_.end(), joining);
  return &group;
}

Result<void> KernelContainer::release_idle_groups() {
  if (members_.empty() && !groups_.empty()) hooks_.tear_down();
  Result<void> released;
  std::erase_if(groups_, [&](Group& group) {
    if (group.users > 0) return false;
    auto left = group.unset_container();
    if (released) released = std::move(left);
    return true;
  });
  return released;
}

Result<Fd> KernelContainer::attach(const HostDevice& device) {
  auto id = require_group(fd_.kernel(), device);
  if (!id) return failure_of(id);
  if (auto bound = require_vfio_driver(device); !bound) return failure_of(bound);
  Member member{.device = device.name, .group = nullptr};
  members_.reserve(members_.size() + 1);
  auto group = join(device, *id);
  if (!group) return failure_of(group);
  const auto let_go = [this] {
    if (members_.empty() || !hooks_.keeps_groups()) log_failure_of([this] { return release_idle_groups(); });
  };
  const OnThrow undo(let_go);
  auto fd = (*group)->open_device(device);
  if (!fd) {
    let_go();
    return fd;
  }
  ++(*group)->users;
  member.group = *group;
  members_.push_back(std::move(member));
  return fd;
}

const Group* KernelContainer::group_of(const std::string& device) const {
  const auto member =
      std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.device == device; });
  return member != members_.end() ? member->group : nullptr;
}

Result<void> KernelContainer::detach(const std::string& device, Fd fd) {
  // VFIO_GROUP_UNSET_CONTAINER gives EBUSY while a device of the group is open.
  fd.reset();
  const auto member =
      std::find_if(members_.begin(), members_.end(), [&](const Member& m) { return m.device == device; });
  --member->group->users;
  members_.erase(member);
  return members_.empty() || !hooks_.keeps_groups() ? release_idle_groups() : Result<void>();
}

}  // namespace postern
