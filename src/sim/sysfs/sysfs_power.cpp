// SPDX-License-Identifier: Apache-2.0
// Sysfs: files of POWER hosts: the device tree, the processors, and an IOMMU for each host bridge, as in QEMU's
// machines (Linux 6.12).
#include <fmt/format.h>

#include "sim/sysfs/sysfs.hpp"

namespace postern::sim {
namespace {

using namespace std::string_literals;

constexpr const char* tree = "/sys/firmware/devicetree/base";

// The node of a PCI domain's host bridge.
std::string bridge_node(Platform platform, std::uint32_t domain) {
  return platform == Platform::pseries
             ? fmt::format("{}/pci@{:x}", tree, 0x800000020000000 + std::uint64_t{domain})
             : fmt::format("{}/pciex@{:x}", tree, 0x600c3c0000000 + std::uint64_t{domain} * 0x100000);
}

std::string node_of(Platform platform, const Function& function) {
  const PciAddress address = function.address();
  const std::string port = platform == Platform::powernv ? "/pci@0" : "";
  const bool is_port = platform == Platform::powernv && address.bus == 0;
  const std::string own = is_port ? "" : fmt::format("/mass-storage@{:x}", address.device);
  return bridge_node(platform, address.domain) + port + own;
}

}  // namespace

void Sysfs::show_power_function(const Function& function) {
  const std::string path = "/sys/bus/pci/devices/" + function.name();
  link(path + "/of_node", node_of(machine_.platform, function));
  if (function.group() < 0) return;
  if (function.address().bus != 0) file(path + "/reset_method", "flr bus\n");  // alone behind its port
  const std::string iommu = fmt::format("iommu-phb{:04x}", function.address().domain);
  link(path + "/iommu", "/sys/class/iommu/" + iommu);
  link("/sys/class/iommu/" + iommu + "/devices/" + function.name(), path);
}

void Sysfs::show_device_tree() {
  const bool is_pseries = machine_.platform == Platform::pseries;
  const std::string root(tree);
  link("/proc/device-tree", root);
  file(root + "/compatible", is_pseries ? "qemu,pseries\0"s : "qemu,powernv9\0ibm,powernv\0"s);
  file(root + "/model", (is_pseries ? "IBM pSeries (emulated by qemu)"s : "IBM PowerNV (emulated by qemu)"s) + '\0');
  for (const auto& [address, function] : machine_.functions) {
    const std::string bridge = bridge_node(machine_.platform, address.domain);
    directory(node_of(machine_.platform, *function));
    if (is_pseries) {
      // Big-endian words: the table number, the start of the window, its size; and the hypervisor's calls.
      file(bridge + "/ibm,dma-window",
           "\x80\0"s + static_cast<char>(address.domain) + "\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0"s);
      file(bridge + "/ibm,ddw-applicable", "\0\0\x20\x26\0\0\x20\x27\0\0\x20\x28"s);
    } else {
      file(bridge + "/ibm,supported-tce-sizes", "\0\0\0\x0c\0\0\0\x10\0\0\0\x15\0\0\0\x1e"s);
    }
  }
  file("/proc/cpuinfo",
       fmt::format("processor\t: 0\ncpu\t\t: POWER9{}, altivec supported\nclock\t\t: 1000.000000MHz\nrevision\t: 2.0 "
                   "(pvr 004e 1200)\n\ntimebase\t: 512000000\nplatform\t: {}\nMMU\t\t: Radix\n",
                   is_pseries ? " (architected)" : "", is_pseries ? "pSeries" : "PowerNV"));
}

}  // namespace postern::sim
