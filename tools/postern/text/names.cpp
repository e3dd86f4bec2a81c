// SPDX-License-Identifier: Apache-2.0
// Names of PCI and VFIO numbers: capabilities, regions, interrupts, dirty sources.
#include "text/names.hpp"

#include <fmt/format.h>

#include <array>
#include <string_view>

namespace postern::tool {
namespace {

// PCI Code and ID Assignment Specification, "Capability IDs" and "Extended Capability IDs", by number.
constexpr std::array<std::string_view, 0x16> capability_names = {
    "Null",
    "Power Management",
    "AGP",
    "Vital Product Data",
    "Slot Identification",
    "MSI",
    "CompactPCI Hot Swap",
    "PCI-X",
    "HyperTransport",
    "Vendor Specific",
    "Debug Port",
    "CompactPCI Resource Control",
    "Hot-Plug",
    "Subsystem ID",
    "AGP 8x",
    "Secure Device",
    "PCI Express",
    "MSI-X",
    "SATA Configuration",
    "Advanced Features",
    "Enhanced Allocation",
    "Flattening Portal Bridge",
};

constexpr std::array<std::string_view, 0x30> extended_names = {
    "Null",
    "Advanced Error Reporting",
    "Virtual Channel",
    "Device Serial Number",
    "Power Budgeting",
    "Root Complex Link Declaration",
    "Root Complex Internal Link Control",
    "Root Complex Event Collector",
    "Multi-Function Virtual Channel",
    "Virtual Channel (with MFVC)",
    "Root Complex Register Block",
    "Vendor Specific",
    "Configuration Access Correlation",
    "Access Control Services",
    "Alternative Routing-ID",
    "Address Translation Services",
    "SR-IOV",
    "Multi-Root IOV",
    "Multicast",
    "Page Request Interface",
    "Reserved for AMD",
    "Resizable BAR",
    "Dynamic Power Allocation",
    "TPH Requester",
    "Latency Tolerance Reporting",
    "Secondary PCI Express",
    "Protocol Multiplexing",
    "PASID",
    "LN Requester",
    "Downstream Port Containment",
    "L1 PM Substates",
    "Precision Time Measurement",
    "PCI Express over M-PHY",
    "FRS Queueing",
    "Readiness Time Reporting",
    "Designated Vendor Specific",
    "VF Resizable BAR",
    "Data Link Feature",
    "Physical Layer 16 GT/s",
    "Lane Margining",
    "Hierarchy ID",
    "Native PCIe Enclosure Management",
    "Physical Layer 32 GT/s",
    "Alternate Protocol",
    "System Firmware Intermediary",
    "Shadow Functions",
    "Data Object Exchange",
    "Device 3",
};

constexpr std::array<std::string_view, 5> interrupt_names = {"INTx", "MSI", "MSI-X", "error", "request"};

}  // namespace

std::string ids_text(const PciFunction& function) {
  return fmt::format("{:04x}:{:04x}", function.vendor_id, function.device_id);
}

std::string class_text(const PciFunction& function) { return class_text(function, find_pci_names(function)); }

std::string class_text(const PciFunction& function, const PciNames& names) {
  return names.device_class.empty() ? fmt::format("class {:06x}", function.class_code) : names.device_class;
}

std::string title_of(const PciFunction& function) { return title_of(function, find_pci_names(function)); }

std::string title_of(const PciFunction& function, const PciNames& names) {
  if (names.device.empty() && names.vendor.empty()) return class_text(function, names);
  if (names.device.empty()) return fmt::format("{}, {}", class_text(function, names), names.vendor);
  // Some device names in pci.ids begin with the vendor's.
  if (names.vendor.empty() || names.device.starts_with(names.vendor)) return names.device;
  return fmt::format("{} {}", names.vendor, names.device);
}

std::string capability_name(const PciCapability& capability) {
  if (capability.extended) {
    if (capability.id < extended_names.size()) return std::string(extended_names.at(capability.id));
    return fmt::format("extended capability {:#06x}", capability.id);
  }
  if (capability.id < capability_names.size()) return std::string(capability_names.at(capability.id));
  return fmt::format("capability {:#04x}", capability.id);
}

std::string region_name(std::uint32_t index) {
  if (index < 6) return fmt::format("BAR {}", index);
  if (index == 6) return "ROM";
  if (index == 7) return "config space";
  if (index == 8) return "VGA";
  return fmt::format("device-specific {}", index - 9);
}

std::string interrupt_name(std::uint32_t index) {
  return index < interrupt_names.size() ? std::string(interrupt_names.at(index)) : fmt::format("interrupt {}", index);
}

std::string_view dirty_source_text(DirtySource source) {
  switch (source) {
    case DirtySource::device:
      return "tracked by the device";
    case DirtySource::iommu:
      return "tracked by the IOMMU";
    case DirtySource::none:
      break;
  }
  return "not tracked";
}

std::string group_text(const HostDevice& host) {
  if (!host.iommu_group) return "none";
  return (host.is_noiommu ? "noiommu-" : "") + to_string(*host.iommu_group);
}

Json function_json(const PciFunction& function) {
  const HostDevice& host = function.host;
  const PciNames names = find_pci_names(function);
  const auto or_null = [](const auto& optional) { return optional ? Json(*optional) : Json(nullptr); };
  Json json = {
      {"address", to_string(function.address)},
      {"vendor_id", fmt::format("{:04x}", function.vendor_id)},
      {"device_id", fmt::format("{:04x}", function.device_id)},
      {"class", fmt::format("{:06x}", function.class_code)},
      {"driver", or_null(host.driver)},
      {"iommu_group", host.iommu_group ? Json(static_cast<std::uint32_t>(*host.iommu_group)) : Json(nullptr)},
      {"noiommu", host.is_noiommu},
      {"vendor_name", names.vendor},
      {"device_name", names.device},
      {"class_name", names.device_class},
  };
  return json;
}

}  // namespace postern::tool
