// SPDX-License-Identifier: Apache-2.0
// find_impossible(): checks whether a described host is possible.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <optional>

#include "sim/hosts/hosts.hpp"

namespace postern::sim {
namespace {

bool is_power(Platform platform) { return platform == Platform::pseries || platform == Platform::powernv; }

// Checks functions[index] by itself.
Impossible check_function(const Host& host, std::size_t index) {
  const HostFunction& function = host.functions[index];
  const ModelName& model = name_of(function.model);
  const auto wrong = [&](std::string_view key, std::string reason, std::string remedy) {
    return Impossible{fmt::format("functions[{}].{}", index, key), std::move(reason), std::move(remedy)};
  };
  if (function.address.device > 31 || function.address.function > 7) {
    return wrong("address", fmt::format("PCI has no {}", to_string(function.address)),
                 "write a device from 0 to 31 (0x1f), and a function from 0 to 7");
  }
  if (function.driver == "vfio-pci" && function.model == HostFunction::Model::bridge) {
    return wrong("driver", "vfio-pci does not support bridges", "omit the driver, or write pci-stub");
  }
  if (!function.driver.empty() && function.driver != "vfio-pci" && function.driver != "pci-stub" &&
      function.driver != model.native_driver && function.driver != model.variant_driver) {
    const auto own = model.variant_driver.empty() ? model.native_driver : model.variant_driver;
    return wrong("driver",
                 fmt::format("\"{}\" does not support a function of the model {}", function.driver, model.name),
                 fmt::format("write {}{}vfio-pci or pci-stub", own, own.empty() ? "" : ", "));
  }
  if (function.driver == "vfio-pci" && function.iommu_group < 0 && !host.enable_unsafe_noiommu_mode) {
    return wrong("driver", "vfio-pci does not support a function without an IOMMU group",
                 "give it an iommu_group, or the host enable_unsafe_noiommu_mode");
  }
  constexpr std::size_t longest_serial = 20;  // NVMe base specification 2.0, figure 275
  if (model.has_disk && function.serial.size() > longest_serial) {
    return wrong("serial", fmt::format("it has {} characters", function.serial.size()),
                 fmt::format("an NVMe's serial number has at most {}", longest_serial));
  }
  constexpr std::uint64_t block = 512;
  if (model.has_disk && (function.bytes == 0 || function.bytes % block != 0)) {
    return wrong("bytes", fmt::format("{} bytes are not a whole number of blocks", function.bytes),
                 fmt::format("write a multiple of {}", block));
  }
  if (host.platform == Platform::powernv && function.address.bus == 0 &&
      function.model != HostFunction::Model::bridge) {
    return wrong("address", "on powernv, bus 0 has only the root port", "put it on bus 1, and a bridge on bus 0");
  }
  return {};
}

// Checks the functions against each other.
Impossible check_together(const Host& host) {
  std::map<PciAddress, std::size_t> at;
  std::map<int, std::size_t> first_of_group;
  for (std::size_t index = 0; index < host.functions.size(); ++index) {
    const HostFunction& function = host.functions[index];
    const auto [same, is_new] = at.try_emplace(function.address, index);
    if (!is_new) {
      return {fmt::format("functions[{}].address", index),
              fmt::format("functions[{}] also has the address {}", same->second, to_string(function.address)),
              "give each function its own address"};
    }
    if (function.iommu_group < 0) continue;
    const auto [first, begins] = first_of_group.try_emplace(function.iommu_group, index);
    const std::uint32_t domain = host.functions[first->second].address.domain;
    if (begins || domain == function.address.domain) continue;
    // pci_device_group: functions of a group share a bus, or a path to it.
    return {fmt::format("functions[{}].iommu_group", index),
            fmt::format("functions[{}] of group {} is in the PCI domain {:04x}, but this one in {:04x}", first->second,
                        function.iommu_group, domain, function.address.domain),
            "put all functions of a group into one PCI domain"};
  }
  // pci_scan_slot looks for other functions of a slot only after it has found number 0. But virtual functions are
  // created by another function, and their numbers may start anywhere after its own (pci_iov_virtfn_bus,
  // pci_iov_virtfn_devfn).
  std::optional<PciAddress> last_first;  // the last function 0 of a slot, which may have virtual functions
  for (const auto& [address, index] : at) {
    const bool is_bridge = host.functions[index].model == HostFunction::Model::bridge;
    if (address.function == 0 && !is_bridge) last_first = address;
    PciAddress first = address;
    first.function = 0;
    const bool may_be_virtual = !is_bridge && last_first && last_first->domain == address.domain;
    if (at.contains(first) || may_be_virtual) continue;
    return {fmt::format("functions[{}].address", index),
            fmt::format("there is no {}, without which the kernel finds no other function of the slot; nor is there an "
                        "earlier function of which it could be a virtual function",
                        to_string(first)),
            "start the functions of a slot with 0"};
  }
  return {};
}

Impossible check_iommu(const Host& host) {
  if (is_power(host.platform)) return {};
  const bool is_arm = host.platform == Platform::arm;
  const unsigned most = is_arm ? 48 : 57;
  if (host.address_bits >= 32 && host.address_bits <= most) return {};
  return {"address_bits",
          fmt::format("{} does not translate {} bits", is_arm ? "an SMMUv3" : "VT-d", host.address_bits),
          fmt::format("write a number from 32 to {}", most)};
}

}  // namespace

Impossible find_impossible(const Host& host) {
  if (Impossible wrong = check_iommu(host); !wrong.empty()) return wrong;
  for (std::size_t index = 0; index < host.functions.size(); ++index) {
    if (Impossible wrong = check_function(host, index); !wrong.empty()) return wrong;
  }
  return check_together(host);
}

Result<void> check_host(const Host& host) {
  Impossible wrong = find_impossible(host);
  if (wrong.empty()) return {};
  return failure({.code = EINVAL,
                  .operation = choose_host,
                  .object = std::move(wrong.place),
                  .reason = std::move(wrong.reason),
                  .remedy = std::move(wrong.remedy)});
}

}  // namespace postern::sim
