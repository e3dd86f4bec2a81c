// SPDX-License-Identifier: Apache-2.0
// What to do about the rest of a device's group, by what this host does with it: the library cannot see that.
#pragma once

#include <postern/error.hpp>
#include <postern/host_device.hpp>
#include <string>

namespace postern::tool {

struct GroupRemedy {
  std::string text;       // empty where nothing is in the way
  bool can_take = false;  // all that is in the way can be bound to VFIO
};
// Of what advise_on_group() gave: it goes, must stay, or cannot be told to be unused.
[[nodiscard]] GroupRemedy remedy_for_group(Kernel& kernel, const GroupAdvice& advice);
// The same for a device, which is never in its own way.
[[nodiscard]] GroupRemedy remedy_for_group(Kernel& kernel, const HostDevice& device);

// The error, in which this stands in place of the library's own advice on that group, in causes too.
[[nodiscard]] Error with_group_remedy(Kernel& kernel, const HostDevice& device, const Error& error);

}  // namespace postern::tool
