// SPDX-License-Identifier: Apache-2.0
// Names of PCI and VFIO numbers: capabilities, regions, interrupts, dirty sources.
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

// "QEMU NVM Express Controller"; without a name in pci.ids, the class or its number.
[[nodiscard]] std::string title_of(const PciFunction& function);
[[nodiscard]] std::string title_of(const PciFunction& function, const PciNames& names);

// "Non-Volatile memory controller"; "class 010802" without pci.ids.
[[nodiscard]] std::string class_text(const PciFunction& function);
[[nodiscard]] std::string class_text(const PciFunction& function, const PciNames& names);

// "7"; "noiommu-7", the name of its node, in no-IOMMU mode; "none".
[[nodiscard]] std::string group_text(const HostDevice& host);

// "Power Management", "Access Control Services"; "capability 0x33" if its name is unknown.
[[nodiscard]] std::string capability_name(const PciCapability& capability);

// "BAR 0", "ROM", "config space", "VGA", "device-specific 0".
[[nodiscard]] std::string region_name(std::uint32_t index);

// "INTx", "MSI", "MSI-X", "error", "request".
[[nodiscard]] std::string interrupt_name(std::uint32_t index);

// "tracked by the device", "tracked by the IOMMU", "not tracked".
[[nodiscard]] std::string_view dirty_source_text(DirtySource source);

// The ids, class and names of a function, in the JSON fields that all commands share.
[[nodiscard]] Json function_json(const PciFunction& function);

}  // namespace postern::tool
