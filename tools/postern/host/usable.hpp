// SPDX-License-Identifier: Apache-2.0
// Whether a backend can be used, for the verbs that say so before they attach.
#pragma once

#include <postern/backend.hpp>

namespace postern::tool {

// The backend's probe, and then the node by which it reaches the device: a device cgroup that forbids it shows only
// when it is opened. It is closed again, and no device is opened by that. A node that somebody has open is one that can
// be. Without a device: the probe alone. Errors: those of both.
[[nodiscard]] Result<void> require_usable(Kernel& kernel, const HostDevice* device, const Backend& backend);

}  // namespace postern::tool
