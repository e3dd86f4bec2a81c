// SPDX-License-Identifier: Apache-2.0
// Binding: moving a device from its driver to a VFIO driver, and back to where it was.
#pragma once

#include <optional>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

// Thread rules: any thread; of one device one at a time.

// What a device was bound to before. Plain data: keep it, or write it down for another process that restores it.
struct Binding {
  std::string bus;
  std::string device;
  std::optional<std::string> driver;           // the driver that was there, if any
  std::optional<std::string> driver_override;  // and the override, if one was set
  // Vendor and device, and those of the subsystem, by which it is known again: "1b36:0010 1af4:1100". Empty: the bus
  // has no such ids, or they were not read, and nothing is compared.
  std::string ids = {};
};

// What a device is bound to now. Errors: EINVAL (no name of a device), those of sysfs.
[[nodiscard]] POSTERN_API Result<Binding> read_binding(Kernel& kernel, const HostDevice& device);

// Binds the device to `driver` alone, through its driver_override (never new_id, which would catch its twins and races
// with other programs). Waits for nothing: sysfs answers when it is done. Errors: ENODEV (the driver is not there: the
// remedy says how to load it; or it is a VFIO driver and the device is in no IOMMU group), EBUSY (the driver refused
// the device; or another thread or process is changing the device's driver), EINVAL (no name of a driver), EACCES (not
// root), those of sysfs. On an error the device is put back to the driver it came from, as far as nobody else has
// changed it meanwhile. Thread rules, of this and the two below: any thread; one at a time works on a device, among all
// processes that use postern (by a lock in /run/postern/lock), and the others are told EBUSY.
[[nodiscard]] POSTERN_API Result<Binding> bind_to_driver(Kernel& kernel, const HostDevice& device,
                                                         const std::string& driver);

// Puts the device back: the override first, then the driver that was there, or none if there was none. Waits, as sysfs
// does, until nobody has the device open. Errors: as above; ENODEV (another device is at this name now: its ids
// differ).
[[nodiscard]] POSTERN_API Result<void> restore_binding(Kernel& kernel, const Binding& binding);

// For a device of which nothing is remembered: takes its override away and lets the kernel choose a driver, which may
// be none. Waits and errors: as above.
[[nodiscard]] POSTERN_API Result<void> bind_to_default_driver(Kernel& kernel, const HostDevice& device);

}  // namespace postern
