// SPDX-License-Identifier: Apache-2.0
// Why devices share an IOMMU group, and which of them can be taken from their drivers for it.
#include <fmt/format.h>

#include <algorithm>
#include <postern/host_device.hpp>

#include "base/remedy.hpp"
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

Result<std::uint32_t> class_of(Kernel& kernel, const HostDevice& device) {
  const auto number = POSTERN_TRY(sysfs::number(kernel, device.sysfs_path + "/class"));
  return static_cast<std::uint32_t>(number.value_or(0)) >> 8;
}

// Empty if it is not a virtual function.
Result<std::string> physical_function_of(Kernel& kernel, const std::string& device) {
  const std::string path = fmt::format("/sys/bus/pci/devices/{}/physfn", device);
  return POSTERN_TRY(sysfs::link_name(kernel, path)).value_or("");
}

std::string slot_of(const std::string& device) { return device.substr(0, device.rfind('.')); }

Result<std::string> find_why_shared(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  const std::string physical = POSTERN_TRY(physical_function_of(kernel, device));
  std::vector<std::string> ports;
  std::size_t in_slot = 0;
  for (const HostDevice& member : group.members) {
    if (member.name == physical) {
      return fmt::format("this board does not isolate {} from {}, whose virtual function it is (no ACS on the way)",
                         device, physical);
    }
    if (member.bus != "pci") continue;
    if (POSTERN_TRY(class_of(kernel, member)) == pci_bridge) {
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

std::string why_shared(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  auto why = find_why_shared(kernel, group, device);
  return why ? *std::move(why) : fmt::format("why they share the group is unknown: {}", why.error().summary());
}

Result<std::string> find_why_it_stays(Kernel& kernel, const HostDevice& member, const std::string& device) {
  if (member.bus != "pci")
    return fmt::format("it is on the {} bus, and only PCI devices can be bound to VFIO here", member.bus);
  if (member.name == POSTERN_TRY(physical_function_of(kernel, device)))
    return fmt::format("it is the physical function of {}, which is gone without that driver", device);
  switch (POSTERN_TRY(class_of(kernel, member))) {
    case host_bridge:
    case isa_bridge:
    case smbus:
      return "it is part of the chipset, which this host needs";
    default:
      return std::string();
  }
}

}  // namespace

std::string must_stay(Kernel& kernel, const HostDevice& member, const std::string& device) {
  auto why = find_why_it_stays(kernel, member, device);
  return why ? *std::move(why) : fmt::format("it is unknown whether this host needs it: {}", why.error().summary());
}

GroupAdvice advise_on_group(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  GroupAdvice advice;
  if (group.members.size() > 1) advice.why = why_shared(kernel, group, device);
  std::vector<Remedy> staying;
  for (const HostDevice* member : group.blockers()) {
    if (member->name == device) continue;
    const std::string reason = must_stay(kernel, *member, device);
    if (reason.empty()) {
      advice.to_bind.push_back(member->name);
    } else {
      staying.push_back(remedy<RemedyCode::keep_driver>(member->name, reason));
    }
  }
  if (!staying.empty()) {
    advice.to_bind.clear();  // they would be taken for nothing
    advice.remedy = leave_group_alone(staying);
  } else if (!advice.to_bind.empty()) {
    advice.remedy = remedy<RemedyCode::bind_whole_group>(device);
    for (const std::string& name : advice.to_bind) advice.remedy.add(remedy<RemedyCode::bind_to_vfio_driver>(name));
  }
  return advice;
}

Remedies leave_group_alone(std::span<const Remedy> staying) {
  Remedies remedies(RemedyCode::use_slot_with_acs);
  for (const Remedy& each : staying) remedies.add(each);
  return remedies;
}

}  // namespace postern
