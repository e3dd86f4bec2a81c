// SPDX-License-Identifier: Apache-2.0
// PCI functions, from sysfs.
#include <postern/pci_function.hpp>

#include <algorithm>
#include <sstream>

#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr const char* pci_devices = "/sys/bus/pci/devices";

Result<PciFunction> read_function(Kernel& kernel, PciAddress address) {
  auto host = find_host_device(kernel, "pci", to_string(address));
  if (!host) return failure_of(host);
  PciFunction function;
  function.address = address;
  function.host = std::move(*host);

  const auto id = [&](const char* file) {
    return static_cast<std::uint32_t>(sysfs::number(kernel, function.host.sysfs_path + "/" + file).value_or(0));
  };
  function.vendor_id = static_cast<std::uint16_t>(id("vendor"));
  function.device_id = static_cast<std::uint16_t>(id("device"));
  function.subsystem_vendor_id = static_cast<std::uint16_t>(id("subsystem_vendor"));
  function.subsystem_device_id = static_cast<std::uint16_t>(id("subsystem_device"));
  function.class_code = id("class");
  function.revision = static_cast<std::uint8_t>(id("revision"));

  std::istringstream methods(sysfs::text(kernel, function.host.sysfs_path + "/reset_method").value_or(""));
  for (std::string method; methods >> method;) function.reset_methods.push_back(method);
  return function;
}

}  // namespace

Result<std::vector<PciFunction>> list_pci_functions(Kernel& kernel) {
  std::vector<std::string> entries;
  if (const int result = kernel.list_directory(pci_devices, entries); result < 0) {
    return call_failure("opendir",
                        {.result = result,
                         .object = pci_devices,
                         .reason = result == -ENOENT ? "this host has no PCI, or sysfs is not mounted" : ""});
  }
  std::vector<PciFunction> functions;
  for (const std::string& entry : entries) {
    const auto address = PciAddress::parse(entry);
    if (!address) continue;
    auto function = read_function(kernel, *address);
    // A device that is unplugged while the list is read is no longer part of it.
    if (!function && function.error().code() == ENODEV) continue;
    if (!function) return failure_of(function);
    functions.push_back(std::move(*function));
  }
  std::sort(functions.begin(), functions.end(), [](const auto& a, const auto& b) { return a.address < b.address; });
  return functions;
}

Result<PciFunction> find_pci_function(Kernel& kernel, PciAddress address) { return read_function(kernel, address); }

}  // namespace postern
