// SPDX-License-Identifier: Apache-2.0
// The addresses of the x86_64 guest's devices (guests/README.md).
#pragma once

#include "support/host_devices.hpp"

namespace postern::test {

inline constexpr PciAddress nvme_disk{.bus = 0, .device = 1};
inline constexpr PciAddress edu{.bus = 0, .device = 2};
inline constexpr PciAddress nvme_behind_port{.bus = 1, .device = 0};
inline constexpr PciAddress twin_a{.bus = 2, .device = 0, .function = 0};  // two functions of one slot share a group
inline constexpr PciAddress twin_b{.bus = 2, .device = 0, .function = 1};
// Only in the suite "kernel" (tests/guest/run).
inline constexpr PciAddress nvme_with_sriov{.bus = 3, .device = 0, .function = 0};
inline constexpr PciAddress virtual_nvme{.bus = 3, .device = 0, .function = 1};

}  // namespace postern::test
