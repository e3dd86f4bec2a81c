// SPDX-License-Identifier: Apache-2.0
// Why devices share an IOMMU group, and which of them can be taken from their drivers for it.
#include <fmt/format.h>

#include <algorithm>
#include <postern/host_device.hpp>

#include "base/words.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"

namespace postern {
namespace {

// Classes of PCI, without the programming interface (include/linux/pci_ids.h).
constexpr std::uint32_t host_bridge = 0x0600;
constexpr std::uint32_t isa_bridge = 0x0601;
constexpr std::uint32_t pci_bridge = 0x0604;
constexpr std::uint32_t smbus = 0x0c05;

std::uint32_t class_of(Kernel& kernel, const HostDevice& device) {
  return static_cast<std::uint32_t>(sysfs::number(kernel, device.sysfs_path + "/class").value_or(0)) >> 8;
}

std::string physical_function_of(Kernel& kernel, const std::string& device) {
  return sysfs::link_name(kernel, fmt::format("/sys/bus/pci/devices/{}/physfn", device)).value_or("");
}

std::string slot_of(const std::string& device) { return device.substr(0, device.rfind('.')); }

std::string why_shared(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  const std::string physical = physical_function_of(kernel, device);
  std::vector<std::string> ports;
  std::size_t in_slot = 0;
  for (const HostDevice& member : group.members) {
    if (member.name == physical) {
      return fmt::format("this board does not isolate {} from {}, whose virtual function it is (no ACS on the way)",
                         device, physical);
    }
    if (member.bus != "pci") continue;
    if (class_of(kernel, member) == pci_bridge) {
      ports.push_back(member.name);
    } else if (slot_of(member.name) == slot_of(device)) {
      ++in_slot;
    }
  }
  if (!ports.empty()) {
    return fmt::format("they share the group because {} {} no ACS", list_text(ports),
                       ports.size() == 1 ? "has" : "have");
  }
  if (in_slot == group.members.size())
    return fmt::format("they share the group because the functions of {} have no ACS between them", slot_of(device));
  return "they share the group because nothing on the way to them has ACS";
}

}  // namespace

std::string must_stay(Kernel& kernel, const HostDevice& member, const std::string& device) {
  if (member.name == physical_function_of(kernel, device))
    return fmt::format("without its driver {} is gone, whose physical function it is", device);
  if (member.bus != "pci") return fmt::format("it is on the {} bus, and postern binds PCI devices alone", member.bus);
  switch (class_of(kernel, member)) {
    case host_bridge:
    case isa_bridge:
    case smbus:
      return "it is a part of the chipset, which this host needs";
    default:
      return {};
  }
}

GroupAdvice advise_on_group(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  GroupAdvice advice;
  if (group.members.size() > 1) advice.why = why_shared(kernel, group, device);
  std::vector<std::string> staying;
  for (const HostDevice* member : group.obstacles()) {
    if (member->name == device) continue;
    const std::string reason = must_stay(kernel, *member, device);
    if (reason.empty()) {
      advice.to_bind.push_back(member->name);
    } else {
      staying.push_back(fmt::format("{}: {}", member->name, reason));
    }
  }
  if (!staying.empty()) {
    advice.to_bind.clear();  // they would be taken for nothing
    advice.remedy = leave_group_alone(staying);
  } else if (!advice.to_bind.empty()) {
    std::vector<std::string> commands;
    for (const std::string& name : advice.to_bind) commands.push_back(fmt::format("\"postern bind {}\"", name));
    advice.remedy =
        fmt::format("the group goes as a whole: {}, if \"postern doctor {}\" says that this host can spare {}",
                    list_text(commands), device, commands.size() == 1 ? "it" : "them");
  }
  return advice;
}

std::string leave_group_alone(std::span<const std::string> staying) {
  return fmt::format(
      "put the device into another slot, whose port has ACS, or use another device; what shares its group "
      "here must stay ({})",
      fmt::join(staying, "; "));
}

}  // namespace postern
