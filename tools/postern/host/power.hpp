// SPDX-License-Identifier: Apache-2.0
// What is particular to POWER hosts: which machine it is, its host bridges' DMA windows, and what they count as locked
// memory.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/host_device.hpp>
#include <string>

#include "host/conditions.hpp"

namespace postern::tool {

// powernv is the bare machine; pseries, one under a hypervisor.
enum class Machine : std::uint8_t { other, powernv, pseries };

[[nodiscard]] Machine read_machine(Kernel& kernel);
[[nodiscard]] bool is_power(Kernel& kernel);

// The default DMA window of the device or, without one, of the first host bridge that says. Bytes, from the device tree
// under a hypervisor; on the bare machine it is always the same. Nothing where it is not known.
[[nodiscard]] std::optional<std::uint64_t> default_window_size(Kernel& kernel, Machine machine,
                                                               const HostDevice* device);

// What each version of the spapr backend needs the limit of locked memory to be, in bytes.
struct LockedOnPower {
  std::uint64_t tables = 0;    // of version 2's windows
  std::uint64_t version2 = 0;  // those, and what is mapped
  std::uint64_t version1 = 0;  // the whole default window, mapped or not, and its table
};
// `page`: the host's, in bytes, which are the largest pages that a window for ordinary memory can have.
[[nodiscard]] LockedOnPower locked_on_power(Machine machine, std::uint64_t default_window, std::uint64_t memory,
                                            std::uint64_t page);

// Whether the limit of locked memory allows it.
[[nodiscard]] Condition judge_locked_on_power(Kernel& kernel, std::optional<std::uint64_t> needed,
                                              std::uint64_t default_window);

// Whether a hypervisor makes DMA windows for this device.
[[nodiscard]] Condition judge_dma_windows(Kernel& kernel, const HostDevice& device);

}  // namespace postern::tool
