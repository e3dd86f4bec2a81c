// SPDX-License-Identifier: Apache-2.0
// PciDevice: config space, its capability lists, BARs and the command register.
#include <postern/pci_device.hpp>

#include <fmt/format.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <bitset>

#include "device/irqs.hpp"
#include "device/pci/device_responds.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"
#include "kernel/vfio.hpp"

namespace postern {

Result<void> check_device_responds(const Device& device) {
  const auto regions = device.regions();
  constexpr std::size_t config = VFIO_PCI_CONFIG_REGION_INDEX;
  if (regions.size() <= config || regions[config].length == 0) return {};  // no config space
  // Does not read the ids, since VFIO emulates those of virtual functions (vfio_config_init).
  std::uint32_t revision_and_class = 0;
  POSTERN_TRY(device.read(config, PCI_CLASS_REVISION, std::as_writable_bytes(std::span(&revision_and_class, 1))));
  return is_no_answer(revision_and_class) ? no_answer(device.container()->kernel(), device.name()) : Result<void>();
}

Result<PciDevice> PciDevice::open(Device device) {
  if (!device.is_pci()) {
    return refusal({.result = -EINVAL, .object = device.name(), .reason = "it is not a PCI device"});
  }
  if (device.regions().size() <= pci_config || device.regions()[pci_config].length == 0) {
    return refusal({.result = -EIO,
                    .kind = ErrorKind::invalid_answer,
                    .object = device.name(),
                    .reason = "it has no config space region"});
  }
  PciDevice pci(std::move(device));
  POSTERN_TRY(pci.walk_capabilities());
  return pci;
}

Result<void> PciDevice::walk_capabilities() {
  // Both lists are linked by offsets from the device. The walk ends at a visited offset, so it is finite.
  std::bitset<PCI_CFG_SPACE_EXP_SIZE> visited;
  auto status = POSTERN_TRY(read_config<std::uint16_t>(PCI_STATUS));
  if ((status & PCI_STATUS_CAP_LIST) != 0) {
    auto next = POSTERN_TRY(read_config<std::uint8_t>(PCI_CAPABILITY_LIST));
    std::uint16_t offset = next & 0xfc;
    while (offset >= PCI_STD_HEADER_SIZEOF && !visited[offset]) {
      visited.set(offset);
      auto header = POSTERN_TRY(read_config<std::uint16_t>(offset));
      capabilities_.push_back({.id = static_cast<std::uint16_t>(header & 0xff), .offset = offset, .extended = false});
      offset = static_cast<std::uint16_t>(header >> 8 & 0xfc);
    }
  }
  if (device_.regions()[pci_config].length < PCI_CFG_SPACE_EXP_SIZE) return {};
  std::uint16_t offset = PCI_CFG_SPACE_SIZE;
  while (offset >= PCI_CFG_SPACE_SIZE && !visited[offset]) {
    visited.set(offset);
    auto header = POSTERN_TRY(read_config<std::uint32_t>(offset));
    if (header == 0 || header == ~std::uint32_t{0}) break;  // an empty list; or a device that does not respond
    // VFIO hides a capability by giving it id 0 and keeping its link (vfio_ecap_init).
    const auto id = static_cast<std::uint16_t>(PCI_EXT_CAP_ID(header));
    if (id != 0) capabilities_.push_back({.id = id, .offset = offset, .extended = true});
    offset = static_cast<std::uint16_t>(PCI_EXT_CAP_NEXT(header));
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
  const auto regions = device_.regions();  // none of a device that was moved from
  return device_.map_region(bar, 0, bar < regions.size() ? regions[bar].length : 0);
}

Result<void> PciDevice::update_command(std::uint16_t set, std::uint16_t clear) const {
  auto command = POSTERN_TRY(read_config<std::uint16_t>(PCI_COMMAND));
  return write_config<std::uint16_t>(PCI_COMMAND, static_cast<std::uint16_t>((command | set) & ~clear));
}

Result<void> PciDevice::enable_memory() const { return update_command(PCI_COMMAND_MEMORY, 0); }
Result<void> PciDevice::enable_bus_master() const { return update_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 0); }
Result<void> PciDevice::disable_bus_master() const { return update_command(0, PCI_COMMAND_MASTER); }

Result<std::string> PciDevice::reset() const {
  POSTERN_TRY(device_.reset());
  POSTERN_TRY(check_responds());
  const auto path = fmt::format("/sys/bus/pci/devices/{}/reset_method", name());
  const std::string methods = sysfs::text_if_readable(device_.container()->kernel(), path);
  return methods.substr(0, methods.find(' '));
}

Result<void> PciDevice::set_vf_token(const VfToken& token) const {
  return device_.set_feature(VFIO_DEVICE_FEATURE_PCI_VF_TOKEN, token.bytes);
}

Result<void> PciDevice::check_responds() const {
  // Only a device that was moved from has no regions: open() requires config space.
  if (device_.regions().empty()) POSTERN_TRY(read_config<std::uint32_t>(PCI_CLASS_REVISION));
  return check_device_responds(device_);
}

const Interrupt& PciDevice::interrupt(PciInterrupt kind) const noexcept {
  static constexpr Interrupt none;
  const auto index = static_cast<std::size_t>(kind);
  const auto all = device_.interrupts();
  return index < all.size() ? all[index] : none;
}

Result<void> PciDevice::notify(PciInterrupt kind, const Event& event) const {
  if (kind == PciInterrupt::error || kind == PciInterrupt::request) return enable(kind, std::span(&event, 1));
  return refusal({.result = -EINVAL,
                  .object = interrupt_text(name(), true, static_cast<std::uint32_t>(kind)),
                  .reason = "only PciInterrupt::error and PciInterrupt::request notify",
                  .remedy = RemedyCode::enable_instead_of_notifying});
}

}  // namespace postern
