// SPDX-License-Identifier: Apache-2.0
// ResetSet: queries which devices a hot reset affects, and who owns them, and resets them.
#include <postern/reset_set.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "base/remedy.hpp"
#include "base/words.hpp"
#include "device/device_io.hpp"
#include "device/pci/device_responds.hpp"
#include "host/requirements.hpp"
#include "iommu/group.hpp"
#include "kernel/flex_array.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

constexpr const auto& get_info = vfio::device_get_pci_hot_reset_info;
constexpr const auto& hot_reset = vfio::device_pci_hot_reset;

constexpr int most_attempts = 8;
constexpr std::uint32_t most_devices = 0x10000;  // the functions of a PCI domain

std::string object_of(const Device& device) { return fmt::format("slot or bus of {}", device.name()); }

struct Dependents {
  bool by_device_id = false;  // the kernel reports device ids of an iommufd, not groups
  std::vector<vfio_pci_dependent_device> devices;
};

// Returns 0 or a negated errno. With ENOSPC the kernel reports their number; EAGAIN means that a device was added since
// it counted them (vfio_pci_fill_devs).
int ask(DeviceIo& io, Dependents& dependents) {
  std::uint32_t room = 1;
  int result = -EAGAIN;
  for (int attempt = 0; attempt < most_attempts && (result == -EAGAIN || result == -ENOSPC); ++attempt) {
    FlexArray<vfio_pci_hot_reset_info, vfio_pci_dependent_device> answer(room);
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

// If the device does not respond, that is why its slot or bus cannot be reset, or did not come back.
void explain_silence(CallFailed& what, const Device& device) {
  const auto alive = check_device_responds(device);
  if (alive || !alive.error().refused()) return;
  what.kind = alive.error().kind();
  what.reason += "; " + alive.error().reason();
  what.remedy = alive.error().remedies();
}

tl::unexpected<Error> ask_failure(int result, const Device& device) {
  CallFailed what{.result = result, .object = object_of(device)};
  if (result == -ENODEV) {
    what.kind = ErrorKind::unsupported;
    what.reason = "its slot or bus cannot be reset, for example because it is on a root bus";
    what.remedy = RemedyCode::reset_function;
    explain_silence(what, device);
  } else if (result == -EPERM) {
    what.kind = ErrorKind::no_iommu;
    what.reason = "one of the devices on it is in no IOMMU group";
  } else if (result == -EAGAIN || result == -ENOSPC) {
    what.kind = ErrorKind::in_use;
    what.reason = fmt::format("devices were added or removed in each of {} attempts", most_attempts);
    what.remedy = RemedyCode::try_again;
  } else if (result == -EPROTO) {
    what.reason = fmt::format("{} returned no device, or more than can exist", get_info.symbol);
    return refusal(std::move(what));
  }
  return call_failure(get_info.symbol, std::move(what));
}

// A function as in sysfs. Its driver blocks the reset if it is not a VFIO driver.
ResetMember look_up(Kernel& kernel, PciAddress address) {
  ResetMember member{
      .address = address, .driver = {}, .is_vfio = false, .group = {}, .device_id = {}, .blocker = "no longer there"};
  auto host = find_host_device(kernel, "pci", to_string(address));
  if (!host && host.error().code() != ENOENT) member.blocker = host.error().message();
  if (!host) return member;
  member.driver = std::move(host->driver);
  member.is_vfio = host->is_vfio;
  member.group = host->iommu_group;
  member.blocker = member.driver ? fmt::format("bound to {}", *member.driver) : "bound to no driver";
  if (member.is_vfio) member.blocker.clear();
  return member;
}

}  // namespace

Result<ResetSet> ResetSet::of(const Device& device, std::span<const Device* const> also_owned) {
  if (!device.io_) return device.closed();
  if (!device.is_pci()) {
    return refusal({.result = -EINVAL, .object = device.name(), .reason = "it is not a PCI device"});
  }
  Dependents dependents;
  if (const int result = ask(*device.io_, dependents); result < 0) return ask_failure(result, device);

  ResetSet set(device);
  set.also_owned_.assign(also_owned.begin(), also_owned.end());
  const std::vector<const Group*> groups = set.held_groups();
  const auto own = PciAddress::parse(device.name());
  for (const vfio_pci_dependent_device& each : dependents.devices) {
    // The kernel's struct truncates the domain to 16 bits. All devices of a bus are in one domain.
    ResetMember member = look_up(device.io_->kernel(), {.domain = own ? own->domain : each.segment,
                                                        .bus = each.bus,
                                                        .device = static_cast<std::uint8_t>(each.devfn >> 3),
                                                        .function = static_cast<std::uint8_t>(each.devfn & 7)});
    bool held = false;
    if (dependents.by_device_id) {
      held = each.devid != static_cast<std::uint32_t>(VFIO_PCI_DEVID_NOT_OWNED);
      if (held) member.blocker.clear();  // the kernel has checked that itself
      if (held && each.devid != VFIO_PCI_DEVID_OWNED) member.device_id = each.devid;
    } else {
      // A driver blocks the reset even if this process owns the group (vfio_pci_dev_set_resettable, Linux 5.14).
      member.group = GroupId{each.group_id};
      held = std::any_of(groups.begin(), groups.end(), [&](const Group* group) { return group->id() == member.group; });
    }
    if (!held && member.blocker.empty()) {
      member.blocker = fmt::format("bound to {}, not attached here", member.driver.value_or("VFIO"));
    }
    set.members_.push_back(std::move(member));
  }
  std::sort(set.members_.begin(), set.members_.end(),
            [](const ResetMember& a, const ResetMember& b) { return a.address < b.address; });
  return set;
}

bool ResetSet::complete() const noexcept {
  return std::all_of(members_.begin(), members_.end(), [](const ResetMember& member) { return member.owned(); });
}

// The groups through which the devices were opened, each once, except those of devices detached meanwhile.
std::vector<const Group*> ResetSet::held_groups() const {
  std::vector<const Group*> groups;
  const auto add = [&](const Device* device) {
    const Group* const group = device->io_ ? device->io_->group() : nullptr;
    if (group != nullptr && std::find(groups.begin(), groups.end(), group) == groups.end()) groups.push_back(group);
  };
  add(device_);
  std::for_each(also_owned_.begin(), also_owned_.end(), add);
  return groups;
}

tl::unexpected<Error> ResetSet::refuse_incomplete() const {
  std::vector<std::string> missing;
  Remedies must_stay_put;
  Remedies to_bind;
  Remedies to_attach;
  bool bridge = false;
  for (const ResetMember& member : members_) {
    if (member.owned()) continue;
    const std::string name = to_string(member.address);
    missing.push_back(fmt::format("{} ({})", name, member.blocker));
    const auto host = find_host_device(device_->io_->kernel(), "pci", name);
    const std::string staying = host ? must_stay(device_->io_->kernel(), *host, device_->name()) : "";
    if (member.driver == "pcieport") {
      bridge = true;
    } else if (!staying.empty()) {
      must_stay_put.add(remedy<RemedyCode::keep_driver>(name, staying));
    } else if (member.is_vfio) {
      to_attach.add(remedy<RemedyCode::attach_too>(name));
    } else if (host) {
      to_bind.add(remedy<RemedyCode::bind_if_spare>(name));
    }
  }
  CallFailed what{.result = -EPERM,
                  .kind = ErrorKind::in_use,
                  .object = object_of(*device_),
                  .reason = "it also resets devices that this process does not own: " + list_text(missing)};
  if (bridge) what.reason += "; no VFIO driver supports the bridge";
  what.remedy = must_stay_put;
  if (must_stay_put.empty()) what.remedy.add(to_bind);
  what.remedy.add(to_attach);
  return refusal(std::move(what));
}

Result<void> ResetSet::reset() const {
  if (!device_->io_) return device_->closed();
  if (!complete()) return refuse_incomplete();
  // The kernel accepts at most as many groups as there are devices, and none for a device that was opened by its cdev
  // (vfio_pci_ioctl_pci_hot_reset, Linux 6.5).
  std::vector<const Group*> groups = held_groups();
  std::erase_if(groups, [this](const Group* group) {
    return std::none_of(members_.begin(), members_.end(),
                        [&](const ResetMember& member) { return member.group == group->id(); });
  });
  if (device_->io_->group() == nullptr) groups.clear();
  FlexArray<vfio_pci_hot_reset, std::int32_t> proof(groups.size());
  for (const Group* group : groups) proof.tail()[proof.head().count++] = group->fd();
  const int result = device_->io_->pci_hot_reset(proof.head());
  if (result >= 0) {
    auto alive = check_device_responds(*device_);
    for (const Device* device : also_owned_) {
      if (alive && device->io_) alive = check_device_responds(*device);
    }
    return alive;
  }

  CallFailed what{.result = result, .object = object_of(*device_)};
  if (result == -EINVAL || result == -ENODEV) {
    what.kind = ErrorKind::stale;
    what.reason =
        "the set of devices has changed since it was read, and can no longer be reset or is no longer owned by this "
        "process";
    what.remedy = RemedyCode::read_reset_set_again;
  } else if (result == -EBUSY || result == -EAGAIN) {
    what.reason = "a device that it resets is being accessed";
    what.remedy = RemedyCode::try_again;
  } else if (result == -ENOTTY) {
    // pci_bridge_wait_for_secondary_bus
    what.kind = ErrorKind::no_answer;
    what.reason = "it was reset, but a device on it, or the link to it, did not come back in time";
    explain_silence(what, *device_);
  }
  return call_failure(hot_reset.symbol, std::move(what));
}

}  // namespace postern
