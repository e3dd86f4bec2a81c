// SPDX-License-Identifier: Apache-2.0
// Hot reset: the functions that a reset of a bus affects, their owners, and the reset.
#pragma once

#include <linux/vfio.h>

#include "sim/machine/machine.hpp"

namespace postern::sim {

// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO and VFIO_DEVICE_PCI_HOT_RESET of a function that is open through its group, in any
// kind of container, or by its cdev. Return 0 or a negated errno.
[[nodiscard]] int get_hot_reset_info(Machine& machine, const Function& function, vfio_pci_hot_reset_info& info);
[[nodiscard]] int hot_reset(Machine& machine, const Function& function, const vfio_pci_hot_reset& request);

}  // namespace postern::sim
