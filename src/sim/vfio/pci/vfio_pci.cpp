// SPDX-License-Identifier: Apache-2.0
// VfioPci: what a function is, its interrupts, reset and low power (vfio_pci_core.c, Linux 7.3).
#include "sim/vfio/pci/vfio_pci.hpp"

#include <algorithm>
#include <cstring>

#include "sim/process/argument.hpp"
#include "sim/vfio/pci/hot_reset.hpp"

namespace postern::sim {

int VfioPci::ioctl(unsigned long request, void* argument) {
  Process& process = machine_.process;
  switch (request) {
    case VFIO_DEVICE_GET_INFO:
      return with_argument<vfio_device_info>(process, argument, offsetof(vfio_device_info, cap_offset),
                                             [this](auto& info) { return get_info(info); });
    case VFIO_DEVICE_GET_REGION_INFO:
      return with_argument<vfio_region_info>(process, argument, sizeof(vfio_region_info),
                                             [this](auto& info) { return get_region_info(info); });
    case VFIO_DEVICE_GET_IRQ_INFO:
      return with_argument<vfio_irq_info>(process, argument, sizeof(vfio_irq_info),
                                          [this](auto& info) { return get_irq_info(info); });
    case VFIO_DEVICE_SET_IRQS:
      return with_argument<vfio_irq_set>(
          process, argument, sizeof(vfio_irq_set), [this](auto& set) { return function_.interrupts().set(set); },
          UserArgument::Tail::wanted);
    case VFIO_DEVICE_RESET:
      return reset();
    case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
      return with_argument<vfio_pci_hot_reset_info>(
          process, argument, sizeof(vfio_pci_hot_reset_info),
          [this](auto& info) { return get_hot_reset_info(machine_, function_, info); });
    case VFIO_DEVICE_PCI_HOT_RESET:
      return with_argument<vfio_pci_hot_reset>(
          process, argument, sizeof(vfio_pci_hot_reset),
          [this](auto& wanted) { return hot_reset(machine_, function_, wanted); }, UserArgument::Tail::wanted);
    default:
      return -ENOTTY;
  }
}

// vfio_pci_core_match: a name and options behind it, of which there is one, a token that only SR-IOV has.
int VfioPci::match(std::string_view text) const {
  const std::string& name = function_.name();
  if (text.substr(0, name.size()) != name) return 0;
  text.remove_prefix(name.size());
  if (!text.empty() && text.front() != ' ') return 0;
  return text.find_first_not_of(' ') == std::string_view::npos ? 1 : -EINVAL;
}

int VfioPci::get_info(vfio_device_info& info) const {
  if (info.argsz < offsetof(vfio_device_info, num_irqs) + sizeof info.num_irqs) return -EINVAL;
  // vfio_pci_ioctl_get_info: the struct goes as far as there is room.
  const std::uint32_t flags = VFIO_DEVICE_FLAGS_PCI | (function_.info().has_flr ? VFIO_DEVICE_FLAGS_RESET : 0U);
  const vfio_device_info answer{
      .argsz = info.argsz, .flags = flags, .num_regions = VFIO_PCI_NUM_REGIONS, .num_irqs = VFIO_PCI_NUM_IRQS};
  std::memcpy(static_cast<void*>(&info), &answer, std::min<std::size_t>(info.argsz, sizeof info));
  return 0;
}

int VfioPci::get_irq_info(vfio_irq_info& info) const {
  if (info.argsz < sizeof info || info.index >= VFIO_PCI_NUM_IRQS) return -EINVAL;
  info.flags = VFIO_IRQ_INFO_EVENTFD;
  if (info.index == VFIO_PCI_INTX_IRQ_INDEX) {
    info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
  } else if (info.index != VFIO_PCI_MSIX_IRQ_INDEX || !function_.interrupts().can_add_vectors) {
    info.flags |= VFIO_IRQ_INFO_NORESIZE;
  }
  info.count = function_.interrupts().count(info.index);
  return 0;
}

int VfioPci::reset() {
  if (!function_.info().has_flr) return -EINVAL;
  function_.reset();
  return 0;
}

// vfio_pci_core_ioctl_feature: vfio_pci_runtime_pm_entry, vfio_pci_core_pm_exit
int VfioPci::device_feature(const vfio_device_feature& feature, void* /*data*/) {
  const std::uint32_t which = feature.flags & VFIO_DEVICE_FEATURE_MASK;
  const bool exits = which == VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
  const bool enters =
      which == VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY || which == VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;
  if (!enters && !exits) return -ENOTTY;
  if (const int result = check_feature(feature, VFIO_DEVICE_FEATURE_SET, 0); result != 1) return result;
  if (enters && function_.low_power) return -EINVAL;
  function_.low_power = enters;
  return 0;
}

}  // namespace postern::sim
