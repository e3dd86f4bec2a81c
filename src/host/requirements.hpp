// SPDX-License-Identifier: Apache-2.0
// What must hold of a host and a device before the device can be passed through, and what to do where it does not.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/host_device.hpp>
#include <postern/locked_memory.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>

#include "kernel/ioctl.hpp"

namespace postern {

// Whether VFIO made this group for a device without an IOMMU (vfio_noiommu_group_alloc); its number as sysfs has it.
[[nodiscard]] Result<bool> is_noiommu_group(Kernel& kernel, const std::string& group);

// Whether this is a POWER host. Nothing if there is no /proc/cpuinfo. Errors: those of reading it.
[[nodiscard]] Result<std::optional<bool>> is_power(Kernel& kernel);

// A group that is not viable, in words: every member in the way with its driver, and why they share it.
[[nodiscard]] std::string blockers_text(const IommuGroup& group, const GroupAdvice& advice);

// Why this member may not be taken from its driver for the sake of `device`; empty where it may. A
// call that failed is such a reason, too.
[[nodiscard]] std::string must_stay(Kernel& kernel, const HostDevice& member, const std::string& device);

// The failure where `call` was well and the device does not answer: its registers read as all ones.
[[nodiscard]] tl::unexpected<Error> no_answer(Kernel& kernel, const std::string& device);
// Whether this is what a device that does not answer gives for revision and class, which no device has.
[[nodiscard]] constexpr bool is_no_answer(std::uint32_t revision_and_class) { return revision_and_class == ~0U; }

// What an errno of opening a device means where it is for a VF token; false where it is not.
[[nodiscard]] bool explain_vf_token(CallFailed& what, Kernel& kernel, const HostDevice& device);

// What ENOMEM means where so many bytes were to be added to this counter: which limit it met, and how high that must
// be.
void explain_locked_memory(CallFailed& what, Kernel& kernel, std::uint64_t bytes, LockedMemoryCounter counter);

// Whether this kernel module of VFIO takes the device (or, without one, any), whose interrupts may not be isolated.
// Refuses where it is known that they are not and that the module is not told to accept that (its parameter
// allow_unsafe_interrupts); EPERM is what the kernel gives. Errors: also that of reading the parameter.
[[nodiscard]] Result<void> require_interrupt_isolation(Kernel& kernel, const HostDevice* device,
                                                       std::string_view module, const std::string& object);

// What EPERM means where a device is given to an IOMMU: its interrupts could be forged by DMA.
void explain_unsafe_interrupts(CallFailed& what, Kernel& kernel, std::string_view module);

}  // namespace postern
