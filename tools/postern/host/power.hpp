// SPDX-License-Identifier: Apache-2.0
// POWER hosts: the machine, and the DMA windows of its host bridges.
#pragma once

#include <cstdint>
#include <postern/host_device.hpp>
#include <string>

#include "host/conditions.hpp"

namespace postern::tool {

// powernv is bare metal; pseries runs under a hypervisor.
enum class Machine : std::uint8_t { other, powernv, pseries };

[[nodiscard]] Result<Machine> read_machine(Kernel& kernel);
// False also if it is unknown, which diagnose() reports.
[[nodiscard]] bool is_power(Kernel& kernel);

// Checks whether the hypervisor creates DMA windows for this device.
[[nodiscard]] Condition judge_dma_windows(Kernel& kernel, const HostDevice& device);

}  // namespace postern::tool
