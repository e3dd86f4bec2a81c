// SPDX-License-Identifier: Apache-2.0
// Names: what the numbers of PCI and VFIO are called.
#pragma once

#include <cstdint>
#include <postern/dirty_tracker.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <string>
#include <string_view>

#include "text/errors.hpp"

namespace postern::tool {

// "1b36:0010"
[[nodiscard]] std::string ids_text(const PciFunction& function);

// "QEMU NVM Express Controller", or what is known instead: the class, or its number.
[[nodiscard]] std::string title_of(const PciFunction& function);
[[nodiscard]] std::string title_of(const PciFunction& function, const PciNames& names);

// "Non-Volatile memory controller"; "class 010802" where the machine has no pci.ids.
[[nodiscard]] std::string class_text(const PciFunction& function);
[[nodiscard]] std::string class_text(const PciFunction& function, const PciNames& names);

// "7", or "noiommu-7", as its node is called, where no IOMMU translates for it; "none".
[[nodiscard]] std::string group_text(const HostDevice& host);

// "Power Management", "Access Control Services"; "capability 0x33" where it has no name here.
[[nodiscard]] std::string capability_name(const PciCapability& capability);

// "BAR 0", "ROM", "config space", "VGA", "device-specific 0".
[[nodiscard]] std::string region_name(std::uint32_t index);

// "INTx", "MSI", "MSI-X", "error", "request".
[[nodiscard]] std::string interrupt_name(std::uint32_t index);

// Who tells which pages a device wrote: "the device itself", "its IOMMU", "nobody".
[[nodiscard]] std::string_view dirty_source_text(DirtySource source);

// The ids of a function, its class and its names, in the fields that every verb gives them in.
[[nodiscard]] Json function_json(const PciFunction& function);

}  // namespace postern::tool
