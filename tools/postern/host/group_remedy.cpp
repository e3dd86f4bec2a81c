// SPDX-License-Identifier: Apache-2.0
// GroupRemedy: what to do about the other members of a device's group.
#include "host/group_remedy.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <vector>

#include "host/holders.hpp"
#include "host/in_use.hpp"
#include "text/errors.hpp"
#include "text/remedies.hpp"

namespace postern::tool {
namespace {

Result<GroupAdvice> advice_for(Kernel& kernel, const HostDevice& device) {
  if (!device.iommu_group || device.is_noiommu) return GroupAdvice();
  const auto group = POSTERN_TRY(find_iommu_group(kernel, *device.iommu_group));
  return advise_on_group(kernel, group, device.name);
}

Error with_remedy_in_place(const Error& error, const Remedies& old, const Remedies& remedies) {
  Error::Details details = error.details();
  if (details.remedy == old) details.remedy = remedies;
  for (Error& cause : details.causes) cause = with_remedy_in_place(cause, old, remedies);
  return Error(std::move(details));
}

}  // namespace

GroupRemedy remedy_for_group(Kernel& kernel, const GroupAdvice& advice) {
  if (advice.to_bind.empty()) return {.remedies = advice.remedy};
  std::vector<Remedy> used;
  std::vector<std::string> unknown;
  std::vector<std::string> commands;
  for (const std::string& name : advice.to_bind) {
    commands.push_back(words_of(Remedy{.code = RemedyCode::bind_to_vfio_driver, .arguments = {name}}));
    const auto host = find_host_device(kernel, "pci", name);
    if (!host) {
      if (host.error().code() != ENOENT) unknown.push_back(error_line(host.error()));
      continue;
    }
    const InUse in_use = find_uses(kernel, *host);
    if (!in_use.uses.empty())
      used.push_back({.code = RemedyCode::keep_driver, .arguments = {name, in_use.uses_text()}});
    if (!in_use.unknown.empty()) unknown.push_back(fmt::format("{}: {}", name, in_use.unknown_text()));
  }
  if (!used.empty()) return {.remedies = leave_group_alone(used)};
  if (!unknown.empty()) {
    return {.remedies = fmt::format("a group is passed through as a whole; it is unknown whether this host uses its "
                                    "other members ({}): run this as root, outside of containers",
                                    fmt::join(unknown, "; "))};
  }
  return {.remedies = fmt::format("a group is passed through as a whole: {}", fmt::join(commands, ", ")),
          .can_take = true};
}

GroupRemedy remedy_for_group(Kernel& kernel, const HostDevice& device) {
  const auto advice = advice_for(kernel, device);
  if (advice) return remedy_for_group(kernel, *advice);
  return {.remedies = fmt::format("a group is passed through as a whole; its other members are unknown: {}",
                                  error_line(advice.error()))};
}

Error with_group_remedy(Kernel& kernel, const HostDevice& device, const Error& error) {
  const auto advice = advice_for(kernel, device);
  if (!advice || advice->remedy.empty()) return error;
  return with_remedy_in_place(error, advice->remedy, remedy_for_group(kernel, *advice).remedies);
}

}  // namespace postern::tool
