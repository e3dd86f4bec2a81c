// SPDX-License-Identifier: Apache-2.0
// Low power: lets the host suspend an attached device.
#pragma once

#include <postern/device.hpp>
#include <postern/event.hpp>
#include <postern/export.hpp>
#include <postern/result.hpp>

namespace postern {

// In low power the host may suspend a device, also into D3cold, which a guest cannot request itself: a VMM enters low
// power when its guest sets D3hot. Until the device leaves low power:
// - An access to a mapped BAR is a SIGBUS. Afterwards it works again, in the same mapping.
// - All dma-bufs of the device are revoked. Afterwards call remap_dma_bufs() (dma_buf.hpp).
// - Device::read(), write(), reset() and other calls work, and wake the device for the time of the call.
// Detaching the device leaves low power. A kernel without CONFIG_PM accepts all of this, and never suspends.

/// Enters low power: from now on the host may suspend the device. Disable its interrupts and DMA before. A call that
/// wakes the device does not leave low power: the host suspends it again. Thread safety: as Device. Kernel:
/// VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY (Linux 6.1). Errors: EBADF (detached), EINVAL (in low power already), ENOTTY
/// (the kernel or device has no low power).
[[nodiscard]] POSTERN_API Result<void> enter_low_power(const Device& device);

/// The same, with an event that is signalled when the device wakes: because it has requested that (PME), or because of
/// a call. The kernel has then left low power by itself. It keeps a reference to the eventfd. Kernel:
/// VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP. Errors: as above; EINVAL (no event, or no eventfd), EBADF (not
/// open).
[[nodiscard]] POSTERN_API Result<void> enter_low_power(const Device& device, EventRef wakeup);

/// Leaves low power, and wakes the device; succeeds if it is not in low power. Memory decoding is as it was before.
/// Thread safety: as Device. Kernel: VFIO_DEVICE_FEATURE_LOW_POWER_EXIT. Errors: EBADF (detached), ENOTTY (as above).
[[nodiscard]] POSTERN_API Result<void> exit_low_power(const Device& device);

}  // namespace postern
