// SPDX-License-Identifier: Apache-2.0
// Holders: which processes have a device node open.
#pragma once

#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern::tool {

struct Holders {
  std::vector<std::string> processes;  // "qemu-system-x86 (pid 4711)", ordered by pid
  std::vector<std::string> paths;      // those of the nodes that they have open
  std::string hidden;  // why others may have one open that could not be seen; empty: there is nobody else
};

// Looks through /proc/PID/fd for links to one of `paths`. This process is left out. What cannot be looked at, such as
// processes outside of this PID namespace or of other users, is told in `hidden`.
[[nodiscard]] Holders find_holders(Kernel& kernel, std::span<const std::string> paths);

// The same for a device: those that have its cdev or its group open.
[[nodiscard]] Holders find_holders(Kernel& kernel, const HostDevice& device);
// "qemu-system-x86 (pid 4711) has it, or its group, open"; empty where nobody has; and where nobody is seen to have,
// but somebody may, why that cannot be told.
[[nodiscard]] std::string holders_text(Kernel& kernel, const HostDevice& device);

// "a, b and c"; empty where there are none.
[[nodiscard]] std::string list_of(std::span<const std::string> words);

}  // namespace postern::tool
