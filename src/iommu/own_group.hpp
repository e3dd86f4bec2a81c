// SPDX-License-Identifier: Apache-2.0
// Whether it is this process itself that keeps a device out of a container, because it has the device's IOMMU group in
// another one.
#pragma once

#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <string>

#include "kernel/ioctl.hpp"

namespace postern {

// For a call that failed because a group is in use, or in two address spaces. If this process has the group open, or
// the cdev of another member, says so in `what`, and returns true. Reads sysfs and /proc/self/fd.
[[nodiscard]] bool explain_own_group(CallFailed& what, Kernel& kernel, GroupId group, const std::string& device);

}  // namespace postern
