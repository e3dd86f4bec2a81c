// SPDX-License-Identifier: Apache-2.0
// Hot reset: the rules of vfio_pci_core.c (Linux 7.3).
#include "sim/vfio/pci/hot_reset.hpp"

#include <algorithm>
#include <cerrno>
#include <set>

#include "sim/iommufd/iommufd.hpp"
#include "sim/vfio/group_file.hpp"

namespace postern::sim {
namespace {

// All functions on the same bus; none on a root bus, which cannot be reset.
std::vector<Function*> on_bus_of(Machine& machine, const Function& function) {
  std::vector<Function*> together;
  const PciAddress own = function.address();
  for (const auto& [address, other] : machine.functions) {
    if (own.bus != 0 && address.domain == own.domain && address.bus == own.bus) together.push_back(other.get());
  }
  return together;
}

// vfio_pci_fill_devs and vfio_iommufd_get_dev_id
std::uint32_t device_id(const Function& function, const Iommufd& iommufd) {
  if (!function.minor) return static_cast<std::uint32_t>(VFIO_PCI_DEVID_NOT_OWNED);
  if (const std::uint32_t id = iommufd.id_of(function); id != 0) return id;
  return static_cast<std::uint32_t>(iommufd.has_group(function.group()) ? VFIO_PCI_DEVID_OWNED
                                                                        : VFIO_PCI_DEVID_NOT_OWNED);
}

// The iommufd to which its cdev is bound; null if its group opened it.
const Iommufd* iommufd_of_cdev(const Function& function) {
  return function.cdev_opened ? function.iommufd.get() : nullptr;
}

}  // namespace

int get_hot_reset_info(Machine& machine, const Function& function, vfio_pci_hot_reset_info& info) {
  const Iommufd* const iommufd = iommufd_of_cdev(function);
  if (info.argsz < sizeof info) return -EINVAL;
  const auto together = on_bus_of(machine, function);
  if (together.empty()) return -ENODEV;
  info.flags = 0;
  const std::size_t room = (info.argsz - sizeof info) / sizeof(vfio_pci_dependent_device);
  info.count = static_cast<std::uint32_t>(together.size());
  if (together.size() > room) return -ENOSPC;
  if (iommufd != nullptr) info.flags = VFIO_PCI_HOT_RESET_FLAG_DEV_ID | VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;
  auto* device = reinterpret_cast<vfio_pci_dependent_device*>(&info + 1);
  for (const Function* each : together) {
    const PciAddress address = each->address();
    device->segment = static_cast<std::uint16_t>(address.domain);
    device->bus = address.bus;
    device->devfn = static_cast<std::uint8_t>(address.device << 3 | address.function);
    device->group_id = static_cast<std::uint32_t>(each->group());
    if (iommufd != nullptr) device->devid = device_id(*each, *iommufd);
    if (iommufd != nullptr && device->devid == static_cast<std::uint32_t>(VFIO_PCI_DEVID_NOT_OWNED)) {
      info.flags &= ~static_cast<std::uint32_t>(VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED);
    }
    ++device;
  }
  return 0;
}

int hot_reset(Machine& machine, const Function& function, const vfio_pci_hot_reset& request) {
  const Iommufd* const iommufd = iommufd_of_cdev(function);
  if (request.argsz < sizeof request || request.flags != 0) return -EINVAL;
  if ((request.count != 0) == (iommufd != nullptr)) return -EINVAL;
  const auto together = on_bus_of(machine, function);
  if (together.empty()) return -ENODEV;
  // vfio_pci_ioctl_pci_hot_reset_groups
  std::set<int> groups;
  if (request.count > together.size()) return -EINVAL;
  for (std::uint32_t i = 0; i < request.count; ++i) {
    const auto file = machine.process.files.find_any(request.group_fds[i]);
    if (!file) return -EBADF;
    const auto group = file_as<GroupFile>(file);
    if (!group) return -EINVAL;
    if (group->group() != nullptr) groups.insert(group->group()->id);
  }
  // vfio_pci_dev_set_hot_reset
  for (const Function* each : together) {
    const bool owned = iommufd != nullptr
                           ? device_id(*each, *iommufd) != static_cast<std::uint32_t>(VFIO_PCI_DEVID_NOT_OWNED)
                           : groups.count(each->group()) != 0;
    if (!each->minor || !owned) return -EINVAL;
  }
  for (Function* each : together) each->reset();
  return 0;
}

}  // namespace postern::sim
