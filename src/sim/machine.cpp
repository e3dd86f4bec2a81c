// SPDX-License-Identifier: Apache-2.0
// Machine: binding drivers, and what opening a node finds.
#include "sim/machine.hpp"

#include <fmt/format.h>
#include <linux/vfio.h>

#include <algorithm>

#include "sim/vfio/group_file.hpp"

namespace postern::sim {
namespace {

// vfio-pci, and the variants that are named after it.
bool is_vfio(std::string_view driver) { return driver.ends_with("vfio-pci"); }

}  // namespace

std::string node_name(const Group& group) { return fmt::format("{}{}", group.is_noiommu ? "noiommu-" : "", group.id); }

// vfio_device_set_noiommu_and_name (Linux 7.3)
std::string cdev_name(const Function& function) {
  return fmt::format("{}vfio{}", function.has_iommu() ? "" : "noiommu-", *function.minor);
}

void Machine::add(std::unique_ptr<Function> function) {
  if (const int id = function->group(); id >= 0) {
    groups[id].id = id;
  } else {
    if (!physical_) {
      // A physical address is the process's own for the same byte.
      auto memory = std::make_shared<AddressSpace>();
      memory->insert({.range = {{0}, {~std::uint64_t{0} >> 1}}, .readable = true, .writable = true});
      physical_ = std::make_shared<Domain>(std::move(memory));
    }
    function->physical = physical_;
  }
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
  // vfio_group_find_or_alloc
  if (function.group() < 0 && is_vfio(driver)) {
    if (!unsafe_noiommu) return -EINVAL;
    make_noiommu_group(function);
  }
  const bool has_group = function.group() >= 0;
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

// vfio_noiommu_group_alloc: a group with the lowest number that is free.
void Machine::make_noiommu_group(Function& function) {
  const auto is_free = [this](int id) {
    const auto found = groups.find(id);
    return found == groups.end() || (found->second.is_noiommu && functions_of(id).empty());
  };
  int id = 0;
  while (!is_free(id)) ++id;
  groups[id] = {.id = id, .is_noiommu = true};
  function.set_group(id);
}

// vfio_unregister_group_dev asks for the device, and waits until it is let go.
int Machine::unbind(Function& function, Lock& lock) {
  if (function.driver.empty()) return -ENODEV;
  if (function.opens > 0) {
    function.interrupts().notify(VFIO_PCI_REQ_IRQ_INDEX);
    changed.wait(lock, [&] { return function.opens == 0; });
  }
  const bool had_node = function.minor.has_value();
  function.driver.clear();
  function.minor.reset();
  if (had_node && !has_vfio(function.group())) {
    if (GroupFile* const file = groups[function.group()].file; file != nullptr) file->revoke();
  }
  if (!function.has_iommu()) function.set_group(-1);  // vfio_device_remove_group
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
