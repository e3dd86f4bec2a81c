// SPDX-License-Identifier: Apache-2.0
// ResetSet: asking what a hot reset resets, showing whose it is, and resetting.
#include <postern/reset_set.hpp>

#include <fmt/format.h>

#include <algorithm>

#include "base/words.hpp"
#include "device/device_io.hpp"
#include "device/pci/answer.hpp"
#include "host/requirements.hpp"
#include "iommu/group.hpp"
#include "kernel/tailed.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

constexpr const auto& get_info = vfio::device_get_pci_hot_reset_info;
constexpr const auto& hot_reset = vfio::device_pci_hot_reset;

constexpr int most_attempts = 8;
constexpr std::uint32_t most_devices = 0x10000;  // the functions of a PCI domain

std::string object_of(const Device& device) { return fmt::format("slot or bus of {}", device.name()); }

struct Dependents {
  bool by_device_id = false;  // the kernel tells device ids of an iommufd, not groups
  std::vector<vfio_pci_dependent_device> devices;
};

// Gives 0 or a negated errno. ENOSPC says how many there are; EAGAIN, that one came since the kernel counted them
// (vfio_pci_fill_devs).
int ask(DeviceIo& io, Dependents& dependents) {
  std::uint32_t room = 1;
  int result = -EAGAIN;
  for (int attempt = 0; attempt < most_attempts && (result == -EAGAIN || result == -ENOSPC); ++attempt) {
    Tailed<vfio_pci_hot_reset_info, vfio_pci_dependent_device> answer(room);
    vfio_pci_hot_reset_info& info = answer.head();
    result = io.get_pci_hot_reset_info(info);
    if (result < 0 && result != -ENOSPC) continue;
    if (info.count == 0 || info.count > most_devices) return -EPROTO;
    if (result == -ENOSPC) {
      room = info.count;
      continue;
    }
    if (info.count > room) return -EPROTO;
    dependents.by_device_id = (info.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID) != 0;
    dependents.devices.assign(answer.tail(), answer.tail() + info.count);
    return 0;
  }
  return result;
}

// A device that does not answer is why its slot or bus cannot be reset, or did not come back.
void explain_silence(CallFailed& what, const Device& device) {
  const auto alive = require_answer_of(device);
  if (alive || !alive.error().refused()) return;
  what.reason += "; " + alive.error().reason();
  what.remedy = alive.error().remedy();
}

tl::unexpected<Error> ask_failure(int result, const Device& device) {
  CallFailed what{.result = result, .object = object_of(device)};
  if (result == -ENODEV) {
    what.reason = "neither its slot nor its bus can be reset: nothing above it can do that, as on a root bus";
    what.remedy = "reset the function alone, where it has a reset";
    explain_silence(what, device);
  } else if (result == -EPERM) {
    what.reason = "one of the devices on it is in no IOMMU group";
  } else if (result == -EAGAIN || result == -ENOSPC) {
    what.reason = fmt::format("devices came and went each of the {} times that the kernel was asked", most_attempts);
    what.remedy = "try again";
  } else if (result == -EPROTO) {
    what.reason = fmt::format("{} tells of no device at all, or of more than there can be", get_info.symbol);
    return refusal(std::move(what));
  }
  return call_failure(get_info.symbol, std::move(what));
}

// What sysfs knows of a function; its driver is in the way where it is no VFIO driver.
ResetMember look_up(Kernel& kernel, PciAddress address) {
  ResetMember member{
      .address = address, .driver = {}, .is_vfio = false, .group = {}, .device_id = {}, .obstacle = "no longer there"};
  auto host = find_host_device(kernel, "pci", to_string(address));
  if (!host && host.error().code() != ENODEV) member.obstacle = host.error().message();
  if (!host) return member;
  member.driver = std::move(host->driver);
  member.is_vfio = host->is_vfio;
  member.group = host->iommu_group;
  member.obstacle = member.driver ? fmt::format("bound to {}", *member.driver) : "bound to no driver";
  if (member.is_vfio) member.obstacle.clear();
  return member;
}

}  // namespace

Result<ResetSet> ResetSet::of(const Device& device, std::span<const Device* const> lent) {
  if (!device.io_) return device.closed();
  if (!device.is_pci()) {
    return refusal({.result = -EINVAL, .object = device.name(), .reason = "it is no PCI device"});
  }
  Dependents dependents;
  if (const int result = ask(*device.io_, dependents); result < 0) return ask_failure(result, device);

  ResetSet set(device);
  set.lent_.assign(lent.begin(), lent.end());
  const std::vector<const Group*> groups = set.held_groups();
  const auto own = PciAddress::parse(device.name());
  for (const vfio_pci_dependent_device& each : dependents.devices) {
    // The kernel's struct cuts the domain to 16 bits. All of a bus is in one domain.
    ResetMember member = look_up(device.io_->kernel(), {.domain = own ? own->domain : each.segment,
                                                        .bus = each.bus,
                                                        .device = static_cast<std::uint8_t>(each.devfn >> 3),
                                                        .function = static_cast<std::uint8_t>(each.devfn & 7)});
    bool held = false;
    if (dependents.by_device_id) {
      held = each.devid != static_cast<std::uint32_t>(VFIO_PCI_DEVID_NOT_OWNED);
      if (held) member.obstacle.clear();  // the kernel has looked itself
      if (held && each.devid != VFIO_PCI_DEVID_OWNED) member.device_id = each.devid;
    } else {
      // Whoever has the group, the driver stays in the way (vfio_pci_dev_set_resettable, Linux 5.14).
      member.group = GroupId{each.group_id};
      held = std::any_of(groups.begin(), groups.end(), [&](const Group* group) { return group->id() == member.group; });
    }
    if (!held && member.obstacle.empty()) {
      member.obstacle = fmt::format("bound to {}, not attached here", member.driver.value_or("VFIO"));
    }
    set.members_.push_back(std::move(member));
  }
  std::sort(set.members_.begin(), set.members_.end(),
            [](const ResetMember& a, const ResetMember& b) { return a.address < b.address; });
  return set;
}

bool ResetSet::complete() const noexcept {
  return std::all_of(members_.begin(), members_.end(), [](const ResetMember& member) { return member.ours(); });
}

// The groups that the devices were opened through, each once; none of a device that was detached meanwhile.
std::vector<const Group*> ResetSet::held_groups() const {
  std::vector<const Group*> groups;
  const auto add = [&](const Device* device) {
    const Group* const group = device->io_ ? device->io_->group() : nullptr;
    if (group != nullptr && std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  };
  add(device_);
  std::for_each(lent_.begin(), lent_.end(), add);
  return groups;
}

tl::unexpected<Error> ResetSet::refuse_incomplete() const {
  std::vector<std::string> missing;
  std::vector<std::string> to_bind;
  std::vector<std::string> to_attach;
  std::vector<std::string> must_not;
  bool bridge = false;
  for (const ResetMember& member : members_) {
    if (member.ours()) continue;
    const std::string name = to_string(member.address);
    missing.push_back(fmt::format("{} ({})", name, member.obstacle));
    const auto host = find_host_device(device_->io_->kernel(), "pci", name);
    const std::string staying = host ? must_stay(device_->io_->kernel(), *host, device_->name()) : "";
    if (member.driver == "pcieport") {
      bridge = true;
    } else if (!staying.empty()) {
      must_not.push_back(fmt::format("{} must stay: {}", name, staying));
    } else if (member.is_vfio) {
      to_attach.push_back(name);
    } else if (host) {
      to_bind.push_back(fmt::format("\"postern bind {}\"", name));
    }
  }
  std::vector<std::string> remedies;
  if (bridge) remedies.emplace_back("what has a bridge in it, which no VFIO driver takes, cannot be reset from here");
  remedies.insert(remedies.end(), must_not.begin(), must_not.end());
  if (!to_bind.empty() && must_not.empty())
    remedies.push_back("give them to VFIO, if this host can spare them: " + list_text(to_bind));
  if (!to_attach.empty()) remedies.push_back("attach to this process too: " + list_text(to_attach));
  return refusal({.result = -EPERM,
                  .object = object_of(*device_),
                  .reason = "it resets these too, which are not ours: " + list_text(missing),
                  .remedy = fmt::format("{}", fmt::join(remedies, "; "))});
}

Result<void> ResetSet::reset() const {
  if (!device_->io_) return device_->closed();
  if (!complete()) return refuse_incomplete();
  // The kernel takes no more groups than there are devices, and of a device with a node of its own none at all
  // (vfio_pci_ioctl_pci_hot_reset, Linux 6.5).
  std::vector<const Group*> groups = held_groups();
  std::erase_if(groups, [this](const Group* group) {
    return std::none_of(members_.begin(), members_.end(),
                        [&](const ResetMember& member) { return member.group == group->id(); });
  });
  if (device_->io_->group() == nullptr) groups.clear();
  Tailed<vfio_pci_hot_reset, std::int32_t> proof(groups.size());
  for (const Group* group : groups) proof.tail()[proof.head().count++] = group->fd();
  const int result = device_->io_->pci_hot_reset(proof.head());
  if (result >= 0) {
    auto alive = require_answer_of(*device_);
    for (const Device* device : lent_) {
      if (alive && device->io_) alive = require_answer_of(*device);
    }
    return alive;
  }

  CallFailed what{.result = result, .object = object_of(*device_)};
  if (result == -EINVAL || result == -ENODEV) {
    what.reason = "what it resets has changed since it was asked for, and can no longer be reset or is not all ours";
    what.remedy = "ask for the set again";
  } else if (result == -EBUSY || result == -EAGAIN) {
    what.reason = "a device that it resets is being accessed right now";
    what.remedy = "try again";
  } else if (result == -ENOTTY) {
    // pci_bridge_wait_for_secondary_bus
    what.reason = "it was reset, but a device on it, or the link to it, did not come back in time";
    explain_silence(what, *device_);
  }
  return call_failure(hot_reset.symbol, std::move(what));
}

}  // namespace postern
