// SPDX-License-Identifier: Apache-2.0
// Machine: its groups, and driver bindings.
#include "sim/machine/machine.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace postern::sim {
namespace {

// vfio-pci, and its variants, which are named after it.
bool is_vfio(std::string_view driver) { return driver.ends_with("vfio-pci"); }

// Whether its config space has the header of one (PCI_HEADER_TYPE_BRIDGE).
bool is_bridge(const Function& function) {
  constexpr std::uint32_t class_bridge_pci = 0x0604;  // PCI_CLASS_BRIDGE_PCI
  return function.info().class_code >> 8 == class_bridge_pci;
}

}  // namespace

std::string node_name(const Group& group) { return fmt::format("{}{}", group.is_noiommu ? "noiommu-" : "", group.id); }

// vfio_device_set_noiommu_and_name (Linux 7.3)
std::string cdev_name(const Device& device) {
  return fmt::format("{}vfio{}", device.has_iommu() ? "" : "noiommu-", *device.minor);
}

void Machine::add(std::unique_ptr<Function> function) {
  if (const int id = function->group(); id >= 0) {
    groups[id].id = id;
    group_ids_.reserve(id);
  } else {
    if (!physical_) {
      // Physical addresses are the process's virtual addresses here.
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

int Machine::connect() {
  std::uint64_t length = 0;
  for (const auto& [address, function] : functions) length += function->bars_length();
  if (const int result = bar_memory.make(length); result < 0) return result;
  std::uint64_t offset = 0;
  for (const auto& [address, function] : functions) {
    function->connect(bar_memory.bytes(), offset);
    offset += function->bars_length();
    if (function->group() >= 0) members_[function->group()].push_back(function.get());
  }
  return 0;
}

Function* Machine::find(std::string_view name) {
  const auto address = PciAddress::parse(name);
  const auto found = address ? functions.find(*address) : functions.end();
  return found != functions.end() ? found->second.get() : nullptr;
}

std::span<Device* const> Machine::devices_of(int group) const {
  const auto found = members_.find(group);
  if (found == members_.end()) return {};
  return found->second;
}

// driver_managed_dma: port drivers and VFIO drivers do no DMA of their own.
bool Machine::kernel_owns(int group) const {
  const auto members = devices_of(group);
  return std::any_of(members.begin(), members.end(), [](const Device* device) {
    return !device->driver.empty() && !is_vfio(device->driver) && device->driver != "pcieport" &&
           device->driver != "pci-stub";
  });
}

void Machine::reset_group(int group) {
  for (const auto& [address, function] : functions) {
    if (function->group() == group) function->reset();
  }
}

bool Machine::has_vfio(int group) const {
  const auto members = devices_of(group);
  return std::any_of(members.begin(), members.end(), [](const Device* device) { return device->minor.has_value(); });
}

int Machine::bind(Function& function, const std::string& driver) {
  // With an override no other driver matches, even if it has the device's id (pci_match_device).
  if (driver != (function.driver_override.empty() ? function.native_driver : function.driver_override)) return -ENODEV;
  if (!function.driver.empty()) return -EBUSY;
  // A variant checks the device.
  if (is_vfio(driver) && driver != "vfio-pci" && driver != function.info().variant_driver) return -ENODEV;
  if (is_vfio(driver) && is_bridge(function)) return -EINVAL;  // vfio_pci_core_register_device
  // vfio_group_find_or_alloc
  if (function.group() < 0 && is_vfio(driver)) {
    if (!unsafe_noiommu) return -EINVAL;
    make_noiommu_group(function);
  }
  const bool has_group = function.group() >= 0;
  const bool taken = has_group && !is_vfio(driver) && driver != "pcieport" && groups[function.group()].owner != nullptr;
  if (taken) return -EBUSY;  // iommu_device_use_default_domain
  function.driver = driver;
  if (is_vfio(driver)) function.minor = minors_.take();
  ++generation;
  return 0;
}

// vfio_noiommu_group_alloc: a group with the lowest free number.
void Machine::make_noiommu_group(Device& device) {
  const int id = group_ids_.take();
  groups[id] = {.id = id, .is_noiommu = true};
  members_[id] = {&device};
  device.set_group(id);
}

// vfio_device_remove_group
void Machine::leave_noiommu_group(Device& device) {
  members_.erase(device.group());
  group_ids_.give_back(device.group());
  device.set_group(-1);
}

// vfio_unregister_group_dev requests the device, and waits until it is closed.
int Machine::unbind(Function& function, Lock& lock) {
  if (function.driver.empty()) return -ENODEV;
  if (function.opens > 0) {
    function.ops->request();
    changed.wait(lock, [&] { return function.opens == 0; });
  }
  const bool had_node = function.minor.has_value();
  function.driver.clear();
  if (had_node) minors_.give_back(*std::exchange(function.minor, std::nullopt));
  if (had_node && !has_vfio(function.group())) {
    if (OpenGroup* const file = groups[function.group()].file; file != nullptr) file->revoke();
  }
  if (!function.has_iommu() && function.group() >= 0) leave_noiommu_group(function);
  ++generation;
  return 0;
}

// drivers_probe: binds the driver of the override, else the default one. Succeeds even if the driver fails.
int Machine::probe(Function& function) {
  if (!function.driver.empty()) return 0;
  const std::string& driver = function.driver_override.empty() ? function.native_driver : function.driver_override;
  if (drivers.count(driver) != 0) (void)bind(function, driver);
  return 0;
}

}  // namespace postern::sim
