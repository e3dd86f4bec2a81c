// SPDX-License-Identifier: Apache-2.0
// Whether a device is bound to a VFIO driver.
#include "host/bound.hpp"

#include <fmt/format.h>

#include <cerrno>

#include "host/conditions.hpp"
#include "host/group_remedy.hpp"
#include "host/in_use.hpp"

namespace postern::tool {

Result<void> require_bound(Kernel& kernel, const PciFunction& function, const std::string& verb) {
  const HostDevice& device = function.host;
  if (device.is_vfio) return {};
  Error::Details refusal{
      .code = ENODEV, .operation = verb, .object = device.name, .reason = {}, .remedy = {}, .causes = {}};
  if (const auto kind = judge_kind(function)) {
    refusal.reason = kind->detail;
    refusal.remedy = kind->remedy;
    return failure(std::move(refusal));
  }
  refusal.reason = device.driver ? fmt::format("it is bound to {}, which is no VFIO driver", *device.driver)
                                 : "it is bound to no driver; it must be bound to a VFIO driver";
  const std::string bind = fmt::format("\"postern bind {}\"", device.name);
  const GroupRemedy rest = remedy_for_group(kernel, device);
  const InUse in_use = find_uses(kernel, device);
  if (!in_use.uses.empty()) refusal.reason += "; this host uses it: " + in_use.uses_text();
  refusal.remedy = in_use.uses.empty() ? bind : "end that first, then " + bind;
  if (!rest.text.empty()) refusal.remedy = rest.can_take ? refusal.remedy + "; " + rest.text : rest.text;
  return failure(std::move(refusal));
}

}  // namespace postern::tool
