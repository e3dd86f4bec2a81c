// SPDX-License-Identifier: Apache-2.0
// What to do about the rest of a device's group.
#include "host/group_remedy.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <vector>

#include "host/holders.hpp"
#include "host/in_use.hpp"

namespace postern::tool {
namespace {

GroupAdvice advice_for(Kernel& kernel, const HostDevice& device) {
  if (!device.iommu_group || device.is_noiommu) return {};
  const auto group = find_iommu_group(kernel, *device.iommu_group);
  return group ? advise_on_group(kernel, *group, device.name) : GroupAdvice();
}

Error with_remedy_in_place(const Error& error, const std::string& old, const std::string& text) {
  std::vector<Error> causes;
  for (const Error& cause : error.causes()) causes.push_back(with_remedy_in_place(cause, old, text));
  return Error({.code = error.code(),
                .operation = error.operation(),
                .object = error.object(),
                .reason = error.reason(),
                .remedy = error.remedy() == old ? text : error.remedy(),
                .causes = std::move(causes)});
}

}  // namespace

GroupRemedy remedy_for_group(Kernel& kernel, const GroupAdvice& advice) {
  if (advice.to_bind.empty()) return {.text = advice.remedy};
  std::vector<std::string> used;
  std::vector<std::string> unknown;
  std::vector<std::string> commands;
  for (const std::string& name : advice.to_bind) {
    commands.push_back(fmt::format("\"postern bind {}\"", name));
    const auto host = find_host_device(kernel, "pci", name);
    if (!host) continue;
    const InUse in_use = find_uses(kernel, *host);
    if (!in_use.uses.empty()) used.push_back(fmt::format("{}: {}", name, in_use.uses_text()));
    if (!in_use.unknown.empty()) unknown.push_back(fmt::format("{}: {}", name, in_use.unknown_text()));
  }
  if (!used.empty()) return {.text = leave_group_alone(used)};
  if (!unknown.empty()) {
    return {.text = fmt::format("the group goes as a whole, and whether this host can spare the rest of it cannot be "
                                "told ({}): run this as root and outside of containers, where it can",
                                fmt::join(unknown, "; "))};
  }
  return {.text = fmt::format("the group goes as a whole: {}", fmt::join(commands, ", ")), .can_take = true};
}

GroupRemedy remedy_for_group(Kernel& kernel, const HostDevice& device) {
  return remedy_for_group(kernel, advice_for(kernel, device));
}

Error with_group_remedy(Kernel& kernel, const HostDevice& device, const Error& error) {
  const GroupAdvice advice = advice_for(kernel, device);
  if (advice.remedy.empty()) return error;
  return with_remedy_in_place(error, advice.remedy, remedy_for_group(kernel, advice).text);
}

}  // namespace postern::tool
