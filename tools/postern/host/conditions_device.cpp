// SPDX-License-Identifier: Apache-2.0
// The conditions that one device must meet.
#include <fcntl.h>
#include <fmt/format.h>
#include <grp.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <postern/pci_function.hpp>
#include <sstream>

#include "host/conditions.hpp"
#include "host/group_remedy.hpp"
#include "host/holders.hpp"
#include "host/in_use.hpp"
#include "host/power.hpp"
#include "text/errors.hpp"
#include "text/names.hpp"
#include "text/sizes.hpp"

namespace postern::tool {
namespace {

std::string user_name(uid_t user) {
  const passwd* entry = ::getpwuid(user);
  return entry != nullptr ? entry->pw_name : std::to_string(user);
}

std::string group_name(gid_t group) {
  const ::group* entry = ::getgrgid(group);
  return entry != nullptr ? entry->gr_name : std::to_string(group);
}

// As ls(1) has it: "crw-rw---- root kvm".
std::string mode_text(const FileStatus& status) {
  std::string text = S_ISCHR(status.mode) ? "c" : "-";
  constexpr std::string_view letters = "rwxrwxrwx";
  for (std::size_t bit = 0; bit < letters.size(); ++bit) {
    text += (status.mode >> (letters.size() - 1 - bit) & 1U) != 0 ? letters[bit] : '-';
  }
  return fmt::format("{} {} {}", text, user_name(status.owner), group_name(status.group));
}

Condition judge_binding(const HostDevice& host) {
  Condition condition{.key = "driver", .title = "driver", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  if (host.is_vfio) {
    condition.detail = host.driver.value_or("");
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.detail = host.driver ? fmt::format("{}, which is no VFIO driver", *host.driver) : "none";
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
  if (auto found = require_group(kernel, host); !found) condition.remedy = found.error().remedy();
  return condition;
}

Condition judge_viability(Kernel& kernel, const IommuGroup& group, const std::string& device) {
  Condition condition{.key = "group-viable",
                      .title = "rest of the group",
                      .verdict = Verdict::met,
                      .detail = group.members.size() == 1 ? "there is none" : "nothing in the way",
                      .remedy = {}};
  std::vector<std::string> in_the_way;
  for (const HostDevice* obstacle : group.obstacles()) {
    if (obstacle->name != device)
      in_the_way.push_back(fmt::format("{} ({})", obstacle->name, obstacle->driver.value_or("no driver")));
  }
  if (in_the_way.empty()) return condition;
  const GroupAdvice advice = advise_on_group(kernel, group, device);
  condition.verdict = Verdict::not_met;
  condition.detail = fmt::format("in the way: {}; {}", list_of(in_the_way), advice.why);
  condition.remedy = remedy_for_group(kernel, advice).text;
  return condition;
}

// Devices whose firmware goes on doing DMA into memory of its own cannot be given away: attaching them fails with
// EINVAL or EPERM (require_direct of struct dev_iommu, Linux 6.6; "direct-relaxable" ranges are let pass).
Condition judge_firmware_ranges(Kernel& kernel, GroupId group) {
  Condition condition{
      .key = "firmware-ranges", .title = "firmware's own DMA", .verdict = Verdict::met, .detail = "none", .remedy = {}};
  std::string text;
  if (kernel.read_file(fmt::format("/sys/kernel/iommu_groups/{}/reserved_regions", to_string(group)), text) < 0) {
    condition.verdict = Verdict::unknown;
    condition.detail = "cannot tell: reserved_regions of the group cannot be read";
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

Condition appears_later(std::string key, std::string title) {
  return {.key = std::move(key),
          .title = std::move(title),
          .verdict = Verdict::unknown,
          .detail = "appears when the device is bound to a VFIO driver",
          .remedy = {}};
}

std::vector<Condition> judge_cdev(Kernel& kernel, const HostDevice& host) {
  std::vector<Condition> conditions;
  const bool numbered = host.cdev && host.cdev->number;
  conditions.push_back(
      {.key = "cdev",
       .title = "VFIO cdev",
       .verdict = numbered ? Verdict::met : Verdict::not_met,
       .detail = numbered ? host.cdev->name : "the kernel made none",
       .remedy = numbered ? "" : "iommufd needs Linux 6.6 or later, built with CONFIG_VFIO_DEVICE_CDEV"});
  if (!numbered) return conditions;
  Condition node = judge_node(kernel, "cdev-node", host.cdev->path);
  FileStatus status;
  const bool stale = kernel.status(host.cdev->path, status) >= 0 && status.device != *host.cdev->number;
  if (stale) {
    node.verdict = Verdict::not_met;
    node.detail = "stands for another device than sysfs says: it was left over from an earlier one";
    node.remedy = fmt::format("remove {} and let udev make it anew (\"udevadm trigger\")", host.cdev->path);
  }
  conditions.push_back(std::move(node));
  return conditions;
}

// The same questions that bind and reset ask, and who has it open through VFIO.
Condition judge_use(Kernel& kernel, const HostDevice& host) {
  Condition condition{
      .key = "not-in-use", .title = "in use", .verdict = Verdict::met, .detail = "by nobody", .remedy = {}};
  const Holders holders = find_holders(kernel, host);
  InUse in_use = find_uses(kernel, host);
  if (!holders.hidden.empty() && (host.iommu_group || host.cdev)) in_use.unknown.push_back(holders.hidden);
  if (!holders.processes.empty()) {
    condition.verdict = Verdict::not_met;
    condition.detail = holders_text(kernel, host);
    condition.remedy = "end that program first; a device is opened once at a time";
  } else if (!in_use.uses.empty() && !host.is_vfio) {
    condition.verdict = Verdict::not_met;
    condition.detail = in_use.uses_text();
    condition.remedy = "end that first; bind refuses the device until then";
  } else if (!in_use.unknown.empty()) {
    condition.verdict = Verdict::unknown;
    condition.detail = fmt::format("cannot tell: {}", in_use.unknown_text());
  } else if (!in_use.uses.empty()) {
    condition.detail += "; " + in_use.uses_text();  // which VFIO does not mind, but a reset does
  }
  return condition;
}

}  // namespace

std::optional<Condition> judge_kind(const PciFunction& function) {
  // vfio_pci_core_register_device takes functions with a normal header alone.
  const auto kind = function.class_code >> 8;
  if (kind != 0x0604 && kind != 0x0607 && kind != 0x0609) return std::nullopt;
  return Condition{.key = "device",
                   .title = "device",
                   .verdict = Verdict::not_met,
                   .detail = "VFIO does not pass bridges through",
                   .remedy = "pass the devices behind it through, each on its own"};
}

Condition not_on_power(std::string key, std::string title) {
  return {.key = std::move(key),
          .title = std::move(title),
          .verdict = Verdict::optional,
          .detail = "not for this processor: on POWER, VFIO goes by groups alone",
          .remedy = {}};
}

Condition judge_node(Kernel& kernel, std::string key, const std::string& path) {
  Condition condition{.key = std::move(key), .title = path, .verdict = Verdict::met, .detail = {}, .remedy = {}};
  FileStatus status;
  const bool there = kernel.status(path, status) >= 0;
  if (there) condition.detail = mode_text(status);
  const auto opened = require_node(kernel, path);
  // A group that somebody has open is told of by "in use".
  if (opened || opened.error().code() == EBUSY) return condition;
  const Error& error = opened.error();
  condition.verdict = Verdict::not_met;
  condition.remedy = error.remedy();
  if (error.code() == EMFILE || error.code() == ENFILE || error.code() == ENOMEM) {
    condition.verdict = Verdict::unknown;
    condition.detail = "cannot tell: " + reason_line(error);
  } else if (error.code() == EACCES) {
    condition.detail += fmt::format(": {} may not open it", user_name(::geteuid()));
  } else {
    condition.detail = there ? fmt::format("{}: {}", condition.detail, reason_line(error)) : "does not exist";
  }
  return condition;
}

std::vector<Condition> judge_device(Kernel& kernel, PciAddress address, const std::optional<VfToken>& token) {
  std::vector<Condition> conditions;
  auto function = find_pci_function(kernel, address);
  if (!function) {
    conditions.push_back({.key = "device",
                          .title = "device",
                          .verdict = Verdict::not_met,
                          .detail = error_line(function.error()),
                          .remedy = function.error().remedy()});
    return conditions;
  }
  const HostDevice& host = function->host;
  conditions.push_back({.key = "device",
                        .title = "device",
                        .verdict = Verdict::met,
                        .detail = fmt::format("{} [{}]", title_of(*function), ids_text(*function)),
                        .remedy = {}});
  if (auto kind = judge_kind(*function)) {
    kind->detail = fmt::format("{}: {}", conditions.back().detail, kind->detail);
    conditions.back() = std::move(*kind);
    return conditions;
  }

  if (auto alive = require_answer(kernel, host); !alive) {
    conditions.push_back({.key = "answers",
                          .title = "answers",
                          .verdict = Verdict::not_met,
                          .detail = reason_line(alive.error()),
                          .remedy = alive.error().remedy()});
  }

  std::optional<IommuGroup> group;
  Condition in_group;
  if (host.iommu_group && !host.is_noiommu) {
    auto found = find_iommu_group(kernel, *host.iommu_group);
    if (found) {
      group = std::move(*found);
    } else if (found.error().code() != ENOENT) {
      in_group.detail = "cannot tell: " + error_line(found.error());
      in_group.remedy = found.error().remedy();
    }
  }
  if (in_group.detail.empty()) {
    in_group = judge_group(kernel, host, group ? &*group : nullptr);
  } else {
    in_group.key = "iommu-group";
    in_group.title = "IOMMU group";
  }
  conditions.push_back(std::move(in_group));
  const Machine machine = read_machine(kernel);
  if (machine == Machine::pseries) conditions.push_back(judge_dma_windows(kernel, host));
  if (group) conditions.push_back(judge_firmware_ranges(kernel, group->id));
  conditions.push_back(judge_use(kernel, host));
  conditions.push_back(judge_binding(host));
  if (group) conditions.push_back(judge_viability(kernel, *group, host.name));

  if (const auto physical = physical_function_with_token(kernel, host)) {
    conditions.push_back(
        {.key = "vf-token",
         .title = "VF token",
         .verdict = token ? Verdict::unknown : Verdict::not_met,
         .detail = token
                       ? fmt::format("whether it is the one that {} has is seen when the device is attached", *physical)
                       : fmt::format("needed: its physical function {} is bound to VFIO", *physical),
         .remedy =
             token ? "" : fmt::format("give the token that the driver of {} has set, with --vf-token", *physical)});
  }

  const bool bound = host.is_vfio;
  if (group && bound) {
    conditions.push_back(judge_node(kernel, "group-node", group->path));
  } else if (group) {
    conditions.push_back(appears_later("group-node", group->path));
  }
  if (machine != Machine::other) {
    conditions.push_back(not_on_power("cdev", "VFIO cdev"));
  } else if (bound) {
    for (Condition& condition : judge_cdev(kernel, host)) conditions.push_back(std::move(condition));
  } else {
    conditions.push_back(appears_later("cdev", "VFIO cdev"));
  }
  return conditions;
}

}  // namespace postern::tool
