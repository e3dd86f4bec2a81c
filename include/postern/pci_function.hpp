// SPDX-License-Identifier: Apache-2.0
// PciFunction: a PCI function as sysfs describes it.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/pci_address.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// A snapshot of /sys/bus/pci/devices/ADDRESS. Does not change; read it again after binding the device.
struct PciFunction {
  PciAddress address;                      ///< where it is
  HostDevice host;                         ///< what all buses have
  std::uint16_t vendor_id = 0;             ///< config space, offset 0
  std::uint16_t device_id = 0;             ///< offset 2
  std::uint16_t subsystem_vendor_id = 0;   ///< offset 0x2c
  std::uint16_t subsystem_device_id = 0;   ///< offset 0x2e
  std::uint32_t class_code = 0;            ///< 24 bits: base class, subclass, programming interface
  std::uint8_t revision = 0;               ///< offset 8
  std::vector<std::string> reset_methods;  ///< in the order the kernel tries them: "flr", "bus", "pm", ...
};

/// Lists all PCI functions of the host, sorted by address. Thread-safe. Errors: ENOENT (the host has no PCI), those of
/// sysfs.
[[nodiscard]] POSTERN_API Result<std::vector<PciFunction>> list_pci_functions(Kernel& kernel);

/// Reads one PCI function. Thread-safe. Errors: ErrorKind::not_found (no such device), those of sysfs.
[[nodiscard]] POSTERN_API Result<PciFunction> find_pci_function(Kernel& kernel, PciAddress address);
/// As above, with the address given as text ("0000:00:01.0"). Errors also: those of PciAddress::parse().
[[nodiscard]] POSTERN_API Result<PciFunction> find_pci_function(Kernel& kernel, std::string_view address);

/// The names of a function's ids in the machine's pci.ids, by libpci; empty if unknown.
struct PciNames {
  std::string vendor;        ///< of the vendor id
  std::string device;        ///< of the device id
  std::string device_class;  ///< of the class code
};
/// Looks up a function's names. The first call in a process reads pci.ids, which takes about 10 ms, and caches it.
/// Thread-safe: calls are serialised. libpci calls getpwuid(3), which no other thread may call at the same time.
[[nodiscard]] POSTERN_API PciNames find_pci_names(const PciFunction& function);

}  // namespace postern
