// SPDX-License-Identifier: Apache-2.0
// PciFunction: reads PCI functions from sysfs.
#include <postern/pci_function.hpp>

#include <algorithm>
#include <cerrno>
#include <sstream>

#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr const char* pci_devices = "/sys/bus/pci/devices";

// Does not change `id` if the file does not exist.
template <typename Id>
Result<void> read_id(Kernel& kernel, const std::string& path, Id& id) {
  if (const auto number = POSTERN_TRY(sysfs::number(kernel, path))) id = static_cast<Id>(*number);
  return {};
}

Result<PciFunction> read_files(Kernel& kernel, PciAddress address) {
  auto host = POSTERN_TRY(find_host_device(kernel, "pci", to_string(address)));
  PciFunction function;
  function.address = address;
  function.host = std::move(host);

  const std::string& folder = function.host.sysfs_path;
  POSTERN_TRY(read_id(kernel, folder + "/vendor", function.vendor_id));
  POSTERN_TRY(read_id(kernel, folder + "/device", function.device_id));
  POSTERN_TRY(read_id(kernel, folder + "/subsystem_vendor", function.subsystem_vendor_id));
  POSTERN_TRY(read_id(kernel, folder + "/subsystem_device", function.subsystem_device_id));
  POSTERN_TRY(read_id(kernel, folder + "/class", function.class_code));
  POSTERN_TRY(read_id(kernel, folder + "/revision", function.revision));

  std::istringstream methods(POSTERN_TRY(sysfs::text(kernel, folder + "/reset_method")).value_or(""));
  for (std::string method; methods >> method;) function.reset_methods.push_back(method);
  return function;
}

Result<PciFunction> read_function(Kernel& kernel, PciAddress address) {
  auto function = read_files(kernel, address);
  // If it is unplugged meanwhile, its files disappear one by one (ENOENT), or reading one fails (ENODEV).
  if (function && function->vendor_id != 0) return function;
  auto still_there = find_host_device(kernel, "pci", to_string(address));
  if (!still_there && still_there.error().code() == ENOENT) return failure_of(still_there);
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
    // A device that is unplugged while the list is read is left out.
    if (!function && function.error().code() == ENOENT) continue;
    functions.push_back(POSTERN_TRY(std::move(function)));
  }
  std::sort(functions.begin(), functions.end(), [](const auto& a, const auto& b) { return a.address < b.address; });
  return functions;
}

Result<PciFunction> find_pci_function(Kernel& kernel, PciAddress address) { return read_function(kernel, address); }

Result<PciFunction> find_pci_function(Kernel& kernel, std::string_view address) {
  return read_function(kernel, POSTERN_TRY(PciAddress::parse(address)));
}

}  // namespace postern
