// SPDX-License-Identifier: Apache-2.0
// What must hold of a host and a device before the device can be passed through, and what to do where it does not.
#pragma once

#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <string>

#include "kernel/ioctl.hpp"

namespace postern {

// Whether VFIO made this group for a device without an IOMMU (vfio_noiommu_group_alloc); its number as sysfs has it.
[[nodiscard]] bool is_noiommu_group(Kernel& kernel, const std::string& group);

// A group that is not viable, in words: every member in the way with its driver, and what to do about them.
[[nodiscard]] std::string obstacles_text(const IommuGroup& group);
[[nodiscard]] std::string obstacles_remedy(const IommuGroup& group);

// What ENOMEM means where so many bytes were to be pinned: which limit it met, and how high that must be.
void explain_locked_memory(CallFailed& what, Kernel& kernel, std::uint64_t bytes);

// What EPERM means where a device is given to an IOMMU: its interrupts could be forged by DMA.
void explain_unsafe_interrupts(CallFailed& what, Kernel& kernel, std::string_view backend);

}  // namespace postern
