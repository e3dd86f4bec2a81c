// SPDX-License-Identifier: Apache-2.0
// PciFunction: a PCI device as the host sees it in sysfs.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/pci_address.hpp>
#include <string>
#include <vector>

namespace postern {

// A snapshot of /sys/bus/pci/devices/ADDRESS. It is what it was when it was read; read it again after binding.
struct PciFunction {
  PciAddress address;
  HostDevice host;
  std::uint16_t vendor_id = 0;
  std::uint16_t device_id = 0;
  std::uint16_t subsystem_vendor_id = 0;
  std::uint16_t subsystem_device_id = 0;
  std::uint32_t class_code = 0;  // 24 bits: base class, subclass, programming interface
  std::uint8_t revision = 0;
  std::vector<std::string> reset_methods;  // as the kernel would try them: "flr", "bus", "pm", "device_specific", ...
};

// Every PCI function of the host, by address. Any thread. Errors: ENOENT (the host has no PCI), those of sysfs.
[[nodiscard]] POSTERN_API Result<std::vector<PciFunction>> list_pci_functions(Kernel& kernel);

// Any thread. Errors: ENODEV (no such device), those of sysfs.
[[nodiscard]] POSTERN_API Result<PciFunction> find_pci_function(Kernel& kernel, PciAddress address);

// What a function's ids are called in the machine's pci.ids, by libpci; empty where that is not known.
struct PciNames {
  std::string vendor;
  std::string device;
  std::string device_class;
};
// Reads the list at the first call of the process, which takes some 10 ms, and keeps it. Any thread: one waits for the
// other. The list's reader calls getpwuid(3), which the program must not call in another thread meanwhile.
[[nodiscard]] POSTERN_API PciNames find_pci_names(const PciFunction& function);

}  // namespace postern
