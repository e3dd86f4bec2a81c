// SPDX-License-Identifier: Apache-2.0
// GroupRemedy: what to do about the other members of a device's group. Considers how this host uses them, which the
// library does not know.
#pragma once

#include <postern/error.hpp>
#include <postern/host_device.hpp>

namespace postern::tool {

struct GroupRemedy {
  Remedies remedies = {};  // empty if there are no blockers
  bool can_take = false;   // all blockers can be bound to VFIO
};
// Turns the advice of advise_on_group() into a remedy: bind the members, keep them, or find out whether they are used.
[[nodiscard]] GroupRemedy remedy_for_group(Kernel& kernel, const GroupAdvice& advice);
// The same for a device, which never blocks itself.
[[nodiscard]] GroupRemedy remedy_for_group(Kernel& kernel, const HostDevice& device);

// Returns the error with this remedy in place of the library's advice on the group, also in its causes.
[[nodiscard]] Error with_group_remedy(Kernel& kernel, const HostDevice& device, const Error& error);

}  // namespace postern::tool
