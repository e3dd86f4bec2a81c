// SPDX-License-Identifier: Apache-2.0
// Opening VFIO's device nodes, with errors that name the node, its mode and what to do.
#pragma once

#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

// Opens a node for reading and writing. `object` is for whom: "0000:00:01.0".
[[nodiscard]] Result<Fd> open_node(Kernel& kernel, const std::string& path, const std::string& object);

// Whether this process may open it, without doing so: the same errors, as far as stat(2) and access(2) tell. They do
// not see a device cgroup.
[[nodiscard]] Result<void> probe_node(Kernel& kernel, const std::string& path, const std::string& object);

}  // namespace postern
