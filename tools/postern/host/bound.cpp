// SPDX-License-Identifier: Apache-2.0
// require_bound(): checks that a device is bound to a VFIO driver.
#include "host/bound.hpp"

#include <fmt/format.h>

#include <cerrno>

#include "host/conditions.hpp"
#include "host/group_remedy.hpp"
#include "host/in_use.hpp"
#include "text/remedies.hpp"

namespace postern::tool {

Result<void> require_bound(Kernel& kernel, const PciFunction& function, const std::string& command) {
  const HostDevice& device = function.host;
  if (device.is_vfio) return {};
  Error::Details refusal{.code = ENODEV, .kind = ErrorKind::not_bound, .operation = command, .object = device.name};
  if (const auto kind = judge_kind(function)) {
    refusal.kind = ErrorKind::unsupported;
    refusal.reason = kind->detail;
    refusal.remedy = kind->remedy;
    return failure(std::move(refusal));
  }
  refusal.reason = device.driver ? fmt::format("it is bound to {}, which is not a VFIO driver", *device.driver)
                                 : "it is bound to no driver; it must be bound to a VFIO driver";
  const GroupRemedy rest = remedy_for_group(kernel, device);
  const InUse in_use = find_uses(kernel, device);
  if (!in_use.uses.empty()) refusal.reason += "; this host uses it: " + in_use.uses_text();
  const Remedy bind{.code = RemedyCode::bind_to_vfio_driver, .arguments = {device.name}};
  refusal.remedy = in_use.uses.empty() ? Remedies(bind) : Remedies("stop that use first, then " + words_of(bind));
  if (rest.remedies.empty()) return failure(std::move(refusal));
  refusal.remedy = rest.can_take ? refusal.remedy.add(rest.remedies) : rest.remedies;
  return failure(std::move(refusal));
}

}  // namespace postern::tool
