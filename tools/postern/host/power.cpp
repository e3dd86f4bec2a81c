// SPDX-License-Identifier: Apache-2.0
// POWER hosts: the machine and DMA windows, from /proc/cpuinfo and the device tree.
#include "host/power.hpp"

#include <fmt/format.h>

#include "host/reading.hpp"
#include "text/errors.hpp"

namespace postern::tool {
namespace {

constexpr std::string_view tree = "/sys/firmware/devicetree/base";

// Finds the device tree node that has the device's default window as the kernel does: the nearest above the device
// (pci_dma_find, Linux 6.12).
Result<std::optional<std::string>> node_with_window(Kernel& kernel, const HostDevice& device) {
  const std::string target = POSTERN_TRY(read_target(kernel, device.sysfs_path + "/of_node")).value_or("");
  constexpr std::string_view base = "devicetree/base/";
  const std::size_t found = target.find(base);
  if (found == std::string::npos) return std::nullopt;
  std::string node = fmt::format("{}/{}", tree, target.substr(found + base.size()));
  while (node.size() > tree.size()) {
    if (POSTERN_TRY(is_there(kernel, node + "/ibm,dma-window"))) return node;
    node.erase(node.rfind('/'));
  }
  return std::nullopt;
}

}  // namespace

Result<Machine> read_machine(Kernel& kernel) {
  const std::string text = POSTERN_TRY(read_text(kernel, "/proc/cpuinfo")).value_or("");
  if (text.find(": pSeries\n") != std::string::npos) return Machine::pseries;
  if (text.find(": PowerNV\n") != std::string::npos) return Machine::powernv;
  return Machine::other;
}

bool is_power(Kernel& kernel) { return read_machine(kernel).value_or(Machine::other) != Machine::other; }

Condition judge_dma_windows(Kernel& kernel, const HostDevice& device) {
  Condition condition{
      .key = "dma-windows", .title = "DMA windows", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  const auto unknown = [&](const std::string& why) {
    condition.verdict = Verdict::unknown;
    condition.detail = "unknown: " + why;
    return condition;
  };
  const auto node = node_with_window(kernel, device);
  if (!node) return unknown(error_line(node.error()));
  if (!*node) return unknown("the device tree has no ibm,dma-window above this device");
  const auto applicable = is_there(kernel, **node + "/ibm,ddw-applicable");
  if (!applicable) return unknown(error_line(applicable.error()));
  if (*applicable) {
    // The kernel shows failed_ddw_pdn_list nowhere (arch/powerpc/platforms/pseries/iommu.c, Linux 6.12).
    condition.detail =
        "the hypervisor creates them for this host bridge (ibm,ddw-applicable); only \"postern check\" shows whether "
        "the kernel has given up on them";
    return condition;
  }
  // VFIO creates even the default window by the calls that are named there (spapr_tce_create_table, Linux 6.12).
  condition.verdict = Verdict::not_met;
  condition.detail =
      "the hypervisor creates none for this host bridge (no ibm,ddw-applicable in the device tree), so every mapping "
      "fails with ENODEV";
  condition.remedy =
      "turn on dynamic DMA windows in the hypervisor (QEMU: \"-global spapr-pci-host-bridge.ddw=on\"), and reboot";
  return condition;
}

}  // namespace postern::tool
