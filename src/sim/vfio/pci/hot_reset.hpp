// SPDX-License-Identifier: Apache-2.0
// Hot reset: what a reset of a function's bus resets, whose that is, and doing it.
#pragma once

#include <linux/vfio.h>

#include <functional>

#include "sim/machine/machine.hpp"

namespace postern::sim {

class Iommufd;

// The group that an fd is an open node of; null where that group lost its node. A negated errno where it is of none.
struct GroupOfFd {
  const Group* group = nullptr;
  int result = 0;
};
using FindGroup = std::function<GroupOfFd(int fd)>;

// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO and VFIO_DEVICE_PCI_HOT_RESET of a function that is open through its group
// (whatever that has for its container), or by its cdev in this iommufd. They give 0 or a negated errno.
[[nodiscard]] int get_hot_reset_info(Machine& machine, const Function& function, const Iommufd* iommufd,
                                     vfio_pci_hot_reset_info& info);
[[nodiscard]] int hot_reset(Machine& machine, const Function& function, const Iommufd* iommufd,
                            const FindGroup& find_group, const vfio_pci_hot_reset& request);

}  // namespace postern::sim
