// SPDX-License-Identifier: Apache-2.0
// block_use(): whether this host has file systems or swap on a device that is about to be taken from it.
#pragma once

#include <postern/kernel.hpp>
#include <postern/pci_address.hpp>
#include <string>

namespace postern::tool {

// "nvme0n1p1 is mounted on /home"; empty where nothing of the kind is found. Looks at the block devices beneath the PCI
// device, its partitions, and what is built on top of them (LVM, RAID, encryption). Disks behind NVMe multipath are not
// seen.
[[nodiscard]] std::string block_use(Kernel& kernel, PciAddress address);

}  // namespace postern::tool
