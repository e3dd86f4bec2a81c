// SPDX-License-Identifier: Apache-2.0
// Machine: binding drivers, and what opening a node finds.
#include "sim/machine.hpp"

#include <linux/vfio.h>

#include <algorithm>
#include <charconv>

namespace postern::sim {
namespace {

// vfio-pci, and the variants that are named after it.
bool is_vfio(std::string_view driver) { return driver.ends_with("vfio-pci"); }

}  // namespace

void Machine::add(std::unique_ptr<Function> function) {
  if (const int id = function->group(); id >= 0) groups[id].id = id;
  const PciAddress address = function->address();
  if (const auto variant = function->info().variant_driver; !variant.empty()) drivers.emplace(variant);
  functions[address] = std::move(function);
  ++generation;
}

Function* Machine::find(std::string_view name) {
  const auto address = PciAddress::parse(name);
  const auto found = address ? functions.find(*address) : functions.end();
  return found != functions.end() ? found->second.get() : nullptr;
}

std::vector<Function*> Machine::functions_of(int group) {
  std::vector<Function*> members;
  for (const auto& [address, function] : functions) {
    if (function->group() == group) members.push_back(function.get());
  }
  return members;
}

// driver_managed_dma: port drivers and VFIO's leave the DMA to others.
bool Machine::kernel_owns(int group) {
  const auto members = functions_of(group);
  return std::any_of(members.begin(), members.end(), [](const Function* function) {
    return !function->driver.empty() && !is_vfio(function->driver) && function->driver != "pcieport" &&
           function->driver != "pci-stub";
  });
}

bool Machine::has_vfio(int group) {
  const auto members = functions_of(group);
  return std::any_of(members.begin(), members.end(),
                     [](const Function* function) { return function->minor.has_value(); });
}

int Machine::bind(Function& function, const std::string& driver) {
  if (!function.driver.empty()) return -EBUSY;
  // Only what a driver has an id for, or is overridden with, binds to it.
  if (driver != function.native_driver && driver != function.driver_override) return -ENODEV;
  // A variant looks at what it gets.
  if (is_vfio(driver) && driver != "vfio-pci" && driver != function.info().variant_driver) return -ENODEV;
  const bool has_group = function.group() >= 0;
  if (!has_group && is_vfio(driver)) return -EINVAL;  // vfio_group_find_or_alloc
  const bool taken = has_group && !is_vfio(driver) && driver != "pcieport" && groups[function.group()].owner != nullptr;
  if (taken) return -EBUSY;  // iommu_device_use_default_domain
  function.driver = driver;
  if (is_vfio(driver)) {
    int minor = 0;
    while (std::any_of(functions.begin(), functions.end(),
                       [&](const auto& other) { return other.second->minor == minor; })) {
      ++minor;
    }
    function.minor = minor;
  }
  ++generation;
  return 0;
}

// vfio_unregister_group_dev asks for the device, and waits until it is let go.
int Machine::unbind(Function& function, Lock& lock) {
  if (function.driver.empty()) return -ENODEV;
  if (function.opens > 0) {
    function.interrupts().notify(VFIO_PCI_REQ_IRQ_INDEX);
    changed.wait(lock, [&] { return function.opens == 0; });
  }
  function.driver.clear();
  function.minor.reset();
  ++generation;
  return 0;
}

// drivers_probe: the driver that is asked for, else its own. It answers well whatever the driver said.
int Machine::probe(Function& function) {
  if (!function.driver.empty()) return 0;
  const std::string& driver = function.driver_override.empty() ? function.native_driver : function.driver_override;
  if (drivers.count(driver) != 0) (void)bind(function, driver);
  return 0;
}

}  // namespace postern::sim
