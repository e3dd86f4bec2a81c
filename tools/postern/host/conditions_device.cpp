// SPDX-License-Identifier: Apache-2.0
// The conditions that one device must meet.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <postern/pci_function.hpp>
#include <sstream>

#include "host/backend_conditions.hpp"
#include "host/conditions.hpp"
#include "host/group_remedy.hpp"
#include "host/holders.hpp"
#include "host/in_use.hpp"
#include "host/power.hpp"
#include "text/errors.hpp"
#include "text/names.hpp"
#include "text/remedies.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

Condition judge_binding(const HostDevice& host) {
  Condition condition{.key = "driver", .title = "driver", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  if (host.is_vfio) {
    condition.detail = host.driver.value_or("");
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.detail = host.driver ? fmt::format("{}, which is not a VFIO driver", *host.driver) : "none";
  condition.remedy = fmt::format("\"postern bind {}\"", host.name);
  return condition;
}

Condition judge_group(Kernel& kernel, const HostDevice& host, const IommuGroup* group) {
  Condition condition{
      .key = "iommu-group", .title = "IOMMU group", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  if (group != nullptr) {
    condition.detail =
        fmt::format("{}, with {}", to_string(group->id), counted(group->members.size(), "device", "devices"));
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.detail = host.is_noiommu ? "none: VFIO took it in no-IOMMU mode, in which its DMA reaches all of memory"
                                     : "none: no IOMMU translates for this device";
  if (auto found = require_group(kernel, host); !found) condition.remedy = words_of(found.error().remedies());
  return condition;
}

Condition judge_viability(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  Condition condition{.key = "group-viable",
                      .title = "rest of the group",
                      .verdict = Verdict::met,
                      .detail = group.members.size() == 1 ? "there is none" : "nothing in the way",
                      .remedy = {}};
  std::vector<std::string> in_the_way;
  for (const HostDevice* blocker : group.blockers()) {
    if (blocker->name != device)
      in_the_way.push_back(fmt::format("{} ({})", blocker->name, blocker->driver.value_or("no driver")));
  }
  if (in_the_way.empty()) return condition;
  const GroupAdvice advice = advise_on_group(kernel, group, device);
  condition.verdict = Verdict::not_met;
  condition.detail = fmt::format("in the way: {}; {}", list_of(in_the_way), advice.why);
  condition.remedy = words_of(remedy_for_group(kernel, advice).remedies);
  return condition;
}

// A device whose firmware keeps memory mapped for DMA cannot be passed through: attaching it fails with EINVAL or EPERM
// (require_direct of struct dev_iommu, Linux 6.6; "direct-relaxable" ranges are allowed).
Condition judge_firmware_ranges(Kernel& kernel, GroupId group) {
  Condition condition{
      .key = "firmware-ranges", .title = "firmware's own DMA", .verdict = Verdict::met, .detail = "none", .remedy = {}};
  std::string text;
  const std::string path = fmt::format("/sys/kernel/iommu_groups/{}/reserved_regions", to_string(group));
  if (const int result = kernel.read_file(path, text); result < 0) {
    condition.verdict = Verdict::unknown;
    condition.detail = fmt::format("unknown: reserved_regions of the group cannot be read ({})", errno_name(-result));
    return condition;
  }
  std::istringstream lines(text);
  for (std::string first, last, type; lines >> first >> last >> type;) {
    if (type != "direct") continue;
    condition.verdict = Verdict::not_met;
    condition.detail = fmt::format("the firmware keeps {}-{} mapped for this device (RMRR)", first, last);
    condition.remedy =
        "turn off what uses the device in the firmware's setup (remote management, USB emulation), or ask the "
        "machine's vendor how";
    break;
  }
  return condition;
}

// Checks what bind and reset check, and which processes have the device open through VFIO.
Condition judge_use(Kernel& kernel, const HostDevice& host) {
  Condition condition{
      .key = "not-in-use", .title = "in use", .verdict = Verdict::met, .detail = "by nobody", .remedy = {}};
  const Holders holders = find_holders(kernel, host);
  InUse in_use = find_uses(kernel, host);
  if (!holders.hidden.empty() && (host.iommu_group || host.cdev)) in_use.unknown.push_back(holders.hidden);
  if (!holders.processes.empty()) {
    condition.verdict = Verdict::not_met;
    condition.detail = holders_text(kernel, host);
    condition.remedy = "stop that program: only one process can open a device";
  } else if (!in_use.uses.empty() && !host.is_vfio) {
    condition.verdict = Verdict::not_met;
    condition.detail = in_use.uses_text();
    condition.remedy = "end that first; bind refuses the device until then";
  } else if (!in_use.unknown.empty()) {
    condition.verdict = Verdict::unknown;
    condition.detail = fmt::format("unknown: {}", in_use.unknown_text());
  } else if (!in_use.uses.empty()) {
    condition.detail += "; " + in_use.uses_text();  // allowed by VFIO, but not by reset
  }
  return condition;
}

}  // namespace

std::optional<Condition> judge_kind(const PciFunction& function) {
  // vfio_pci_core_register_device accepts only functions with a normal header.
  const auto kind = function.class_code >> 8;
  if (kind != 0x0604 && kind != 0x0607 && kind != 0x0609) return std::nullopt;
  return Condition{.key = "device",
                   .title = "device",
                   .verdict = Verdict::not_met,
                   .detail = "VFIO does not pass bridges through",
                   .remedy = "pass the devices behind it through, each on its own"};
}

std::vector<Condition> judge_device(Kernel& kernel, const PciFunction& function, const std::optional<VfToken>& token,
                                    std::span<const Examined> examined) {
  std::vector<Condition> conditions;
  const HostDevice& host = function.host;
  conditions.push_back({.key = "device",
                        .title = "device",
                        .verdict = Verdict::met,
                        .detail = fmt::format("{} [{}]", title_of(function), ids_text(function)),
                        .remedy = {}});
  if (auto kind = judge_kind(function)) {
    kind->detail = fmt::format("{}: {}", conditions.back().detail, kind->detail);
    conditions.back() = std::move(*kind);
    return conditions;
  }

  if (auto alive = check_responds(kernel, host); !alive) {
    const bool known = alive.error().kind() == ErrorKind::no_answer;
    conditions.push_back({.key = "answers",
                          .title = "answers",
                          .verdict = known ? Verdict::not_met : Verdict::unknown,
                          .detail = reason_line(alive.error()),
                          .remedy = words_of(alive.error().remedies())});
  }

  std::optional<IommuGroup> group;
  Condition in_group;
  if (host.iommu_group && !host.is_noiommu) {
    auto found = find_iommu_group(kernel, *host.iommu_group);
    if (found) {
      group = std::move(*found);
    } else if (found.error().code() != ENOENT) {
      in_group.detail = "unknown: " + error_line(found.error());
      in_group.remedy = words_of(found.error().remedies());
    }
  }
  if (in_group.detail.empty()) {
    in_group = judge_group(kernel, host, group ? &*group : nullptr);
  } else {
    in_group.key = "iommu-group";
    in_group.title = "IOMMU group";
  }
  conditions.push_back(std::move(in_group));
  if (read_machine(kernel).value_or(Machine::other) == Machine::pseries)
    conditions.push_back(judge_dma_windows(kernel, host));
  if (group) conditions.push_back(judge_firmware_ranges(kernel, group->id));
  conditions.push_back(judge_use(kernel, host));
  conditions.push_back(judge_binding(host));
  if (group) conditions.push_back(judge_viability(kernel, *group, host.name));

  const auto with_token = physical_function_with_token(kernel, host);
  if (!with_token) {
    conditions.push_back(unread("vf-token", "VF token", with_token.error()));
  } else if (const auto& physical = *with_token) {
    conditions.push_back(
        {.key = "vf-token",
         .title = "VF token",
         .verdict = token ? Verdict::unknown : Verdict::not_met,
         .detail = token ? fmt::format("compared with the token of {} when the device is attached", *physical)
                         : fmt::format("needed: its physical function {} is bound to VFIO", *physical),
         .remedy =
             token ? "" : fmt::format("give the token that the driver of {} has set, with --vf-token", *physical)});
  }

  add_requirements(kernel, examined, true, conditions);
  return conditions;
}

}  // namespace postern::tool
