// SPDX-License-Identifier: Apache-2.0
// Binding: moves a device from its driver to a VFIO driver and back.
#pragma once

#include <optional>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

/// The driver a device is, or was, bound to. Plain data: can be stored, and restored by another process.
struct Binding {
  std::string bus;                             ///< "pci"
  std::string device;                          ///< name on that bus: "0000:00:01.0"
  std::optional<std::string> driver;           ///< bound driver, if any
  std::optional<std::string> driver_override;  ///< driver_override, if set
  /// Vendor, device and subsystem ids, "1b36:0010 1af4:1100", to recognise the device again. Empty: the bus has no such
  /// ids, or they were not read; restore_binding() then does not compare them.
  std::string ids = {};
};

/// Reads which driver a device is bound to. Thread safety: any thread, one at a time per device. Errors: EINVAL
/// (invalid device name), those of sysfs.
[[nodiscard]] POSTERN_API Result<Binding> read_binding(Kernel& kernel, const HostDevice& device);

/// Binds the device to `driver` and returns its previous binding. Uses driver_override, which affects this device only,
/// and never new_id, which also matches identical devices and races with other programs. Does not poll: the sysfs
/// writes return when the change is complete. Unbinding from a VFIO driver blocks until the device is closed. On an
/// error, restores the previous driver unless another program has changed it in the meantime. Errors: those of
/// sysfs, with ErrorKind::unavailable (the driver is not loaded: the remedy says how to load it), no_iommu (it is a
/// VFIO driver, and the device is in no IOMMU group), stale (another program changes the driver, too), no_permission
/// (not root); in_use (another thread or process is changing the device's driver), EINVAL (invalid driver name). Thread
/// safety, of this and the three functions below: any thread. A lock in /run/postern/lock serialises changes to one
/// device among all processes that use postern; a second caller fails with ErrorKind::in_use.
[[nodiscard]] POSTERN_API Result<Binding> bind_to_driver(Kernel& kernel, const HostDevice& device,
                                                         const std::string& driver);

/// A device that was bound to another driver.
struct NewBinding {
  HostDevice device;  ///< read again since: for attach()
  Binding previous;   ///< for restore_binding()
};

/// As bind_to_driver(), and then reads the device again, since the HostDevice given still says what was before. On an
/// error the device is left with, or gets back, its previous driver. Errors: those of bind_to_driver() and
/// find_host_device().
[[nodiscard]] POSTERN_API Result<NewBinding> bind_and_read(Kernel& kernel, const HostDevice& device,
                                                           const std::string& driver);

/// Restores a binding: first driver_override, then the driver; no driver if there was none. Blocks, as sysfs does,
/// until the device is closed. Errors: those of bind_to_driver(); ErrorKind::stale (another device has this name now:
/// its ids differ).
[[nodiscard]] POSTERN_API Result<void> restore_binding(Kernel& kernel, const Binding& binding);

/// Clears driver_override and lets the kernel choose a driver, possibly none. For a device without a stored binding.
/// Blocks, and fails, as restore_binding() does.
[[nodiscard]] POSTERN_API Result<void> bind_to_default_driver(Kernel& kernel, const HostDevice& device);

}  // namespace postern
