// SPDX-License-Identifier: Apache-2.0
// PciDevice: config space, its capability lists, BARs and the command register.
#include <postern/pci_device.hpp>

#include <fmt/format.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <bitset>

#include "device/pci/answer.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"
#include "kernel/vfio.hpp"

namespace postern {

Result<void> require_answer_of(const Device& device) {
  const auto regions = device.regions();
  constexpr std::size_t config = VFIO_PCI_CONFIG_REGION_INDEX;
  if (regions.size() <= config || regions[config].length == 0) return {};  // nothing to ask
  // The ids would not do: VFIO makes up those of virtual functions (vfio_config_init).
  std::uint32_t revision_and_class = 0;
  auto read = device.read(config, PCI_CLASS_REVISION, std::as_writable_bytes(std::span(&revision_and_class, 1)));
  if (!read) return failure_of(read);
  return is_no_answer(revision_and_class) ? no_answer(device.container()->kernel(), device.name()) : Result<void>();
}

Result<PciDevice> PciDevice::open(Device device) {
  if (!device.is_pci()) {
    return refusal({.result = -EINVAL, .object = device.name(), .reason = "it is no PCI device"});
  }
  if (device.regions().size() <= config_region || device.regions()[config_region].length == 0) {
    return refusal({.result = -EIO, .object = device.name(), .reason = "it has no config space region"});
  }
  PciDevice pci(std::move(device));
  if (auto walked = pci.walk_capabilities(); !walked) return failure_of(walked);
  return pci;
}

Result<void> PciDevice::walk_capabilities() {
  // Both lists are linked by offsets that the device gave. A visited offset ends the walk, so none is endless.
  std::bitset<PCI_CFG_SPACE_EXP_SIZE> visited;
  auto status = read_config<std::uint16_t>(PCI_STATUS);
  if (!status) return failure_of(status);
  if ((*status & PCI_STATUS_CAP_LIST) != 0) {
    auto next = read_config<std::uint8_t>(PCI_CAPABILITY_LIST);
    if (!next) return failure_of(next);
    std::uint16_t offset = *next & 0xfc;
    while (offset >= PCI_STD_HEADER_SIZEOF && !visited[offset]) {
      visited.set(offset);
      auto header = read_config<std::uint16_t>(offset);
      if (!header) return failure_of(header);
      capabilities_.push_back({.id = static_cast<std::uint16_t>(*header & 0xff), .offset = offset, .extended = false});
      offset = static_cast<std::uint16_t>(*header >> 8 & 0xfc);
    }
  }
  if (device_.regions()[config_region].length < PCI_CFG_SPACE_EXP_SIZE) return {};
  std::uint16_t offset = PCI_CFG_SPACE_SIZE;
  while (offset >= PCI_CFG_SPACE_SIZE && !visited[offset]) {
    visited.set(offset);
    auto header = read_config<std::uint32_t>(offset);
    if (!header) return failure_of(header);
    if (*header == 0 || *header == ~std::uint32_t{0}) break;  // an empty list; a device that does not answer
    // VFIO hides a capability by giving it id 0 and keeping its link (vfio_ecap_init).
    const auto id = static_cast<std::uint16_t>(PCI_EXT_CAP_ID(*header));
    if (id != 0) capabilities_.push_back({.id = id, .offset = offset, .extended = true});
    offset = static_cast<std::uint16_t>(PCI_EXT_CAP_NEXT(*header));
  }
  return {};
}

const PciCapability* PciDevice::find_capability(std::uint16_t id) const noexcept {
  const auto found = std::find_if(capabilities_.begin(), capabilities_.end(),
                                  [id](const PciCapability& c) { return !c.extended && c.id == id; });
  return found == capabilities_.end() ? nullptr : &*found;
}

const PciCapability* PciDevice::find_extended_capability(std::uint16_t id) const noexcept {
  const auto found = std::find_if(capabilities_.begin(), capabilities_.end(),
                                  [id](const PciCapability& c) { return c.extended && c.id == id; });
  return found == capabilities_.end() ? nullptr : &*found;
}

Result<Mmap> PciDevice::map_bar(std::uint32_t bar) const {
  if (bar > PCI_STD_NUM_BARS - 1) {
    return refusal({.result = -ENODEV, .object = fmt::format("{} BAR {}", name(), bar), .reason = "BARs are 0 to 5"});
  }
  return device_.map_region(bar, 0, device_.regions()[bar].length);
}

Result<void> PciDevice::update_command(std::uint16_t set, std::uint16_t clear) const {
  auto command = read_config<std::uint16_t>(PCI_COMMAND);
  if (!command) return failure_of(command);
  return write_config<std::uint16_t>(PCI_COMMAND, static_cast<std::uint16_t>((*command | set) & ~clear));
}

Result<void> PciDevice::enable_memory() const { return update_command(PCI_COMMAND_MEMORY, 0); }
Result<void> PciDevice::enable_bus_master() const { return update_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0); }
Result<void> PciDevice::disable_bus_master() const { return update_command(0, PCI_COMMAND_MASTER); }

Result<std::string> PciDevice::reset() const {
  const auto path = fmt::format("/sys/bus/pci/devices/{}/reset_method", name());
  const std::string methods = sysfs::text(device_.container()->kernel(), path).value_or("");
  if (auto done = device_.reset(); !done) return failure_of(done);
  if (auto alive = require_answer(); !alive) return failure_of(alive);
  return methods.substr(0, methods.find(' '));
}

Result<void> PciDevice::set_vf_token(const VfToken& token) const {
  return device_.set_feature(VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, token.bytes);
}

Result<void> PciDevice::require_answer() const { return require_answer_of(device_); }

const Interrupt& PciDevice::interrupt(PciInterrupt kind) const noexcept {
  static constexpr Interrupt none;
  const auto index = static_cast<std::size_t>(kind);
  const auto all = device_.interrupts();
  return index < all.size() ? all[index] : none;
}

}  // namespace postern
