// SPDX-License-Identifier: Apache-2.0
// GroupContainer: groups that join and leave /dev/vfio/vfio.
#include "iommu/group_container.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.hpp"
#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/node.hpp"
#include "iommu/address_space.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

Node container() {
  return {.path = "/dev/vfio/vfio",
          .sysfs = "/sys/class/misc/vfio",
          .remedy = remedy<RemedyCode::load_module>("vfio", "CONFIG_VFIO_CONTAINER")};
}

Result<NodeFd> open_container(Kernel& kernel, const std::shared_ptr<const Fd>& given, const std::string& object) {
  auto fd = POSTERN_TRY(postern::open_node(kernel, container(), object, given));
  const int api = vfio::get_api_version(kernel, fd.get());
  if (api == VFIO_API_VERSION) return fd;
  if (api < 0) return call_failure(vfio::get_api_version.symbol, {.result = api, .object = object});
  return refusal({.result = -EPROTO,
                  .kind = ErrorKind::unsupported,
                  .object = object,
                  .reason = fmt::format("unsupported VFIO API version {}", api)});
}

}  // namespace

Result<GroupContainer::Opened> GroupContainer::open_node(Kernel& kernel, const Interface& interface,
                                                         const ContainerOptions& options, Probed probed) {
  const std::string object = fmt::format("container {}", interface.backend);
  if (!probed.node) probed = {.node = POSTERN_TRY(open_container(kernel, options.fd, object))};
  const std::uint32_t version = options.version != 0 ? options.version : probed.version;
  std::vector<std::string_view> symbols;
  for (const Extension& extension : interface.extensions) {
    if (version != 0 && version != extension.version) continue;
    if (version == probed.version && version != 0) return Opened{std::move(probed.node), extension};
    const int has = vfio::check_extension(kernel, probed.node.get(), extension.number);
    if (has > 0) return Opened{std::move(probed.node), extension};
    // A failed query does not mean that only an older version exists.
    if (has < 0) return call_failure(vfio::check_extension.symbol, {.result = has, .object = object});
    symbols.push_back(extension.symbol);
  }
  CallFailed what{.result = -ENODEV, .kind = ErrorKind::unavailable, .object = object};
  if (symbols.empty()) {
    what.result = -EINVAL;
    what.kind = ErrorKind::invalid_argument;
    what.reason = fmt::format("the backend has no version {}", version);
    what.remedy = RemedyCode::omit_version;
  } else {
    what.reason = fmt::format("the kernel does not have {}", fmt::join(symbols, " or "));
    what.remedy = remedy<RemedyCode::load_module>(interface.module, "CONFIG_VFIO_CONTAINER");
  }
  return failure(with_processor(kernel, interface.backend, refusal(std::move(what)).value()));
}

Result<std::string> GroupContainer::find_interface(const Interface& interface, Lookup& lookup) {
  auto opened = POSTERN_TRY(open_node(lookup.kernel, interface, {}, std::move(lookup.probed)));
  lookup.probed = {.node = std::move(opened.fd), .version = opened.extension.version};
  return fmt::format("version {}", lookup.probed.version);
}

Node node_of_container(const Lookup& /*lookup*/) { return container(); }

bool is_container_open(const Lookup& lookup) { return static_cast<bool>(lookup.probed.node); }

Result<std::string> find_container_node(const Requirement& /*requirement*/, Lookup& lookup) {
  lookup.probed.node = POSTERN_TRY(open_container(lookup.kernel, lookup.fd, fmt::format("backend {}", lookup.backend)));
  return std::string();
}

void GroupContainer::explain_set_iommu(CallFailed& what) const {
  if (what.result != -EINVAL || !fd_.given) return;
  what.kind = ErrorKind::in_use;
  what.reason = fmt::format("fd {} was given, and has an IOMMU: another Container has its descriptor", fd_.get());
  what.remedy = RemedyCode::give_container_own_fd;
}

bool GroupContainer::has_extension(unsigned long number) const {
  return vfio::check_extension(kernel(), fd_.get(), number) > 0;
}

bool GroupContainer::has_group_of(const HostDevice& device) const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [&](const Group& group) { return group.id() == device.iommu_group; });
}

std::string GroupContainer::groups_text() const {
  std::vector<std::string> groups;
  for (const Group& group : groups_) groups.push_back(to_string(group.id()));
  return list_text(groups);
}

Result<Group*> GroupContainer::join(const HostDevice& device, GroupId id) {
  for (Group& group : groups_) {
    if (group.id() != id) continue;
    POSTERN_TRY(group.check_given(device));
    return &group;
  }
  auto opened = POSTERN_TRY(Group::open(kernel(), id, device));
  std::list<Group> joining;  // allocated before the system call
  Group& group = joining.emplace_back(std::move(opened));
  POSTERN_TRY(group.set_container(fd()));
  if (groups_.empty()) {
    if (auto ready = set_up(device); !ready) {
      log_failure(group.unset_container());
      return failure_of(ready);
    }
  }
  groups_.splice(groups_.end(), joining);
  return &group;
}

Result<void> GroupContainer::release_idle_groups() {
  const auto has_devices = [this](const Group& group) {
    return std::any_of(space().devices().begin(), space().devices().end(),
                       [&](const auto& device) { return device->group == &group; });
  };
  if (space().devices().empty() && !groups_.empty()) tear_down();
  Result<void> released;
  std::erase_if(groups_, [&](Group& group) {
    if (has_devices(group)) return false;
    auto left = group.unset_container();
    if (released) released = std::move(left);
    return true;
  });
  return released;
}

Result<void> GroupContainer::prepare(const HostDevice& device, const std::shared_ptr<const KvmVfioDevice>& kvm) {
  POSTERN_TRY(require_of_device(of_vfio, kernel(), device));
  Group* const group = POSTERN_TRY(join(device, *device.iommu_group));
  return group->add_to(kvm);
}

Result<std::unique_ptr<Attached>> GroupContainer::open(const HostDevice& device,
                                                       const std::shared_ptr<const KvmVfioDevice>& kvm) const {
  const auto group =
      std::find_if(groups_.begin(), groups_.end(), [&](const Group& each) { return each.id() == device.iommu_group; });
  auto fd = POSTERN_TRY(group->open_device(device));
  auto attached = std::make_unique<Attached>(device, NodeFd{.own = std::move(fd)}, &*group);
  attached->kvm = kvm;
  return attached;
}

// A group stays known to the KVMs that its devices are for.
void GroupContainer::remove_from_kvms() {
  for (Group& group : groups_) {
    std::erase_if(group.kvm_files(), [&](const KvmFile& file) {
      return std::none_of(space().devices().begin(), space().devices().end(),
                          [&](const auto& device) { return device->group == &group && device->kvm == file.kvm(); });
    });
  }
}

Result<void> GroupContainer::release_unused() {
  remove_from_kvms();
  return space().devices().empty() || !keeps_groups() ? release_idle_groups() : Result<void>();
}

Result<void> GroupContainer::detach(Attached& device) {
  device.fd.reset();  // VFIO_GROUP_UNSET_CONTAINER fails with EBUSY while a device of the group is open
  return release_unused();
}

Result<void> GroupContainer::close() {
  fd_.own.reset();  // one that was given is still there for the capabilities
  number_ = fd_.get();
  return {};
}

}  // namespace postern
