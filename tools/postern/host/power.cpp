// SPDX-License-Identifier: Apache-2.0
// What is particular to POWER hosts, from /proc/cpuinfo and the device tree.
#include "host/power.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <postern/locked_memory.hpp>
#include <vector>

#include "text/sizes.hpp"

namespace postern::tool {
namespace {

constexpr std::string_view tree = "/sys/firmware/devicetree/base";

// The node of the device tree that has the device's default window, as the kernel seeks it: the nearest above the
// device (pci_dma_find, Linux 6.12).
std::optional<std::string> node_with_window(Kernel& kernel, const HostDevice& device) {
  std::string target;
  if (kernel.read_link(device.sysfs_path + "/of_node", target) < 0) return std::nullopt;
  constexpr std::string_view base = "devicetree/base/";
  const std::size_t found = target.find(base);
  if (found == std::string::npos) return std::nullopt;
  std::string node = fmt::format("{}/{}", tree, target.substr(found + base.size()));
  while (node.size() > tree.size()) {
    FileStatus status;
    if (kernel.status(node + "/ibm,dma-window", status) >= 0) return node;
    node.erase(node.rfind('/'));
  }
  return std::nullopt;
}

// The size in ibm,dma-window: five big-endian words, the number of the table, the start, and the size.
std::optional<std::uint64_t> window_of_node(Kernel& kernel, const std::string& node) {
  constexpr std::size_t words = 5;
  std::string text;
  if (kernel.read_file(node + "/ibm,dma-window", text) < 0 || text.size() != words * 4) return std::nullopt;
  std::uint64_t size = 0;
  for (std::size_t at = text.size() - sizeof size; at < text.size(); ++at)
    size = size << 8 | static_cast<unsigned char>(text[at]);
  return size > 0 ? std::optional(size) : std::nullopt;
}

// A table has 8 bytes for each page. powernv counts a second one, with the addresses in user space
// (pnv_pci_ioda2_table_alloc_pages, Linux 6.12).
std::uint64_t table_size(Machine machine, std::uint64_t window, std::uint64_t page) {
  return (machine == Machine::powernv ? 2 : 1) * (window / page * 8);
}

}  // namespace

Machine read_machine(Kernel& kernel) {
  std::string text;
  if (kernel.read_file("/proc/cpuinfo", text) < 0) return Machine::other;
  if (text.find(": pSeries\n") != std::string::npos) return Machine::pseries;
  if (text.find(": PowerNV\n") != std::string::npos) return Machine::powernv;
  return Machine::other;
}

bool is_power(Kernel& kernel) { return read_machine(kernel) != Machine::other; }

std::optional<std::uint64_t> default_window_size(Kernel& kernel, Machine machine, const HostDevice* device) {
  // As far as the 32-bit space of the bridge's own registers, where skiboot always puts it.
  if (machine == Machine::powernv) return std::uint64_t{2} << 30;
  if (device != nullptr) {
    const auto node = node_with_window(kernel, *device);
    return node ? window_of_node(kernel, *node) : std::nullopt;
  }
  std::vector<std::string> names;
  if (kernel.list_directory(std::string(tree), names) < 0) return std::nullopt;
  for (const std::string& name : names) {
    if (const auto size = window_of_node(kernel, fmt::format("{}/{}", tree, name))) return size;
  }
  return std::nullopt;
}

LockedOnPower locked_on_power(Machine machine, std::uint64_t default_window, std::uint64_t memory, std::uint64_t page) {
  constexpr std::uint64_t default_page = 4096;
  LockedOnPower locked;
  locked.tables = table_size(machine, default_window, default_page);
  locked.version1 = default_window + locked.tables;
  // The kernel makes the default window before any other, and that stays. No window is larger than 2^63 bytes.
  constexpr std::uint64_t largest = std::uint64_t{1} << 63;
  if (memory > default_window) locked.tables += table_size(machine, std::bit_ceil(std::min(memory, largest)), page);
  locked.version2 = memory > ~locked.tables ? ~std::uint64_t{0} : locked.tables + memory;
  return locked;
}

Condition judge_locked_on_power(Kernel& kernel, std::optional<std::uint64_t> needed, std::uint64_t default_window) {
  const auto memory = LockedMemory::read(kernel);
  if (!memory || memory->exempt || !memory->limit) return judge_locked_memory(kernel, needed);
  const auto locked = locked_on_power(read_machine(kernel), default_window, needed.value_or(0),
                                      static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)));
  const auto verdict = [&](std::uint64_t bytes) { return memory->allows(bytes) ? "allowed" : "too much"; };
  Condition condition{
      .key = "locked-memory", .title = "locked memory", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  condition.detail = fmt::format(
      "limited to {}; version 2 of spapr counts {}{} for tables: {}; version 1 counts {} for its whole window and "
      "table: {}",
      size_text(*memory->limit), needed ? size_text(*needed) + " to be mapped and " : "what is mapped and ",
      size_text(locked.tables), verdict(locked.version2), size_text(locked.version1), verdict(locked.version1));
  if (memory->allows(locked.version2)) {
    if (!needed) {
      condition.verdict = Verdict::unknown;
      condition.detail += "; give --memory SIZE to have it judged";
    }
    return condition;
  }
  condition.verdict = Verdict::not_met;
  condition.remedy = raise_locked_memory(locked.version2);
  return condition;
}

Condition judge_dma_windows(Kernel& kernel, const HostDevice& device) {
  Condition condition{
      .key = "dma-windows", .title = "DMA windows", .verdict = Verdict::met, .detail = {}, .remedy = {}};
  const auto node = node_with_window(kernel, device);
  if (!node) {
    condition.verdict = Verdict::unknown;
    condition.detail = "cannot tell: the device tree has no ibm,dma-window above this device";
    return condition;
  }
  FileStatus status;
  if (kernel.status(*node + "/ibm,ddw-applicable", status) >= 0) {
    // What failed_ddw_pdn_list has can be seen nowhere (arch/powerpc/platforms/pseries/iommu.c, Linux 6.12).
    condition.detail =
        "the hypervisor makes them for this host bridge (ibm,ddw-applicable); whether the kernel has given up on them "
        "is seen by \"postern check\" alone";
    return condition;
  }
  // VFIO makes even the default window by the calls that are named there (spapr_tce_create_table, Linux 6.12).
  condition.verdict = Verdict::not_met;
  condition.detail =
      "the hypervisor makes none for this host bridge (no ibm,ddw-applicable in the device tree), so that every "
      "mapping "
      "fails with ENODEV";
  condition.remedy =
      "turn dynamic DMA windows on in the hypervisor (QEMU: \"-global spapr-pci-host-bridge.ddw=on\"), and boot again";
  return condition;
}

}  // namespace postern::tool
