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
  std::vector<std::string> paths;      // the nodes that they have open
  std::string hidden;                  // why other processes may have one open; empty: there are no others
};

// Searches /proc/PID/fd of all other processes for links to one of `paths`. `hidden` reports what could not be
// searched: processes outside of this PID namespace, or of other users.
[[nodiscard]] Holders find_holders(Kernel& kernel, std::span<const std::string> paths);

// The same for a device: processes that have its cdev or its group open.
[[nodiscard]] Holders find_holders(Kernel& kernel, const HostDevice& device);
// "qemu-system-x86 (pid 4711) has it, or its group, open"; empty if no process has; the reason if that is unknown.
[[nodiscard]] std::string holders_text(Kernel& kernel, const HostDevice& device);

// "a, b and c"; empty for an empty list.
[[nodiscard]] std::string list_of(std::span<const std::string> words);

}  // namespace postern::tool
