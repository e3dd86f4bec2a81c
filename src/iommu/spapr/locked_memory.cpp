// SPDX-License-Identifier: Apache-2.0
// What sPAPR counts as locked memory: registered memory, and whole windows or their tables.
#include "iommu/spapr/locked_memory.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <optional>
#include <postern/format.hpp>
#include <set>
#include <string>

#include "host/sysfs.hpp"
#include "iommu/spapr/window_table.hpp"
#include "kernel/ioctl.hpp"

namespace postern::spapr {
namespace {

constexpr std::string_view device_tree = "/sys/firmware/devicetree/base";

// Reads the size from a node's ibm,dma-window: five big-endian words for the table number, the start and the size.
Result<std::optional<std::uint64_t>> window_of_node(Kernel& kernel, const std::string& node) {
  constexpr std::size_t words = 5;
  const std::string property = node + "/ibm,dma-window";
  std::string bytes;
  const int result = kernel.read_file(property, bytes);
  if (result < 0 && result != -ENOENT) return sysfs::unread("read", result, property);
  if (result < 0 || bytes.size() != words * 4) return std::nullopt;
  std::uint64_t size = 0;
  for (std::size_t at = bytes.size() - sizeof size; at < bytes.size(); ++at)
    size = size << 8 | static_cast<unsigned char>(bytes[at]);
  return size > 0 ? std::optional(size) : std::nullopt;
}

// That of the nearest node above the device that has one, as the kernel finds it (pci_dma_find, Linux 6.12).
Result<std::optional<std::uint64_t>> window_of_device(Kernel& kernel, const HostDevice& device) {
  const std::string link = device.sysfs_path + "/of_node";
  std::string target;
  const int result = kernel.read_link(link, target);
  if (result < 0 && result != -ENOENT) return sysfs::unread("readlink", result, link);
  constexpr std::string_view base = "devicetree/base/";
  const std::size_t found = target.find(base);
  if (result < 0 || found == std::string::npos) return std::nullopt;
  std::string node = fmt::format("{}/{}", device_tree, target.substr(found + base.size()));
  while (node.size() > device_tree.size()) {
    if (POSTERN_TRY(sysfs::is_there(kernel, node + "/ibm,dma-window"))) return window_of_node(kernel, node);
    node.erase(node.rfind('/'));
  }
  return std::nullopt;
}

// The first of the host.
Result<std::optional<std::uint64_t>> window_of_host(Kernel& kernel) {
  for (const std::string& name : POSTERN_TRY(sysfs::entries(kernel, std::string(device_tree)))) {
    auto size = window_of_node(kernel, fmt::format("{}/{}", device_tree, name));
    if (!size && size.error().code() == ENOTDIR) continue;  // a property, not a node
    if (!size || *size) return size;
  }
  return std::nullopt;
}

// The size of the largest default window that one of the devices has.
Result<std::uint64_t> default_window_size(Kernel& kernel, Platform platform, std::span<const HostDevice> devices) {
  // It ends where the bridge's 32-bit register space starts, which skiboot always puts there.
  if (platform == Platform::powernv) return std::uint64_t{2} << 30;
  std::optional<std::uint64_t> largest;
  if (devices.empty()) largest = POSTERN_TRY(window_of_host(kernel));
  for (const HostDevice& device : devices) largest = std::max(largest, POSTERN_TRY(window_of_device(kernel, device)));
  if (largest) return *largest;
  return refusal({.result = -ENODEV,
                  .kind = ErrorKind::unavailable,
                  .object = devices.empty() ? "host" : devices.front().name,
                  .reason = "the size of the default DMA window is unknown: the device tree has no ibm,dma-window"});
}

// A host bridge is a PCI domain, which is the first part of its devices' names.
std::uint64_t bridge_count(std::span<const HostDevice> devices) {
  std::set<std::string> bridges;
  for (const HostDevice& device : devices) bridges.insert(device.name.substr(0, device.name.find(':')));
  return std::max<std::uint64_t>(bridges.size(), 1);
}

}  // namespace

Result<std::vector<LockedMemoryNeed>> locked_memory(Kernel& kernel, const MemoryToMap& memory,
                                                    std::span<const HostDevice> devices) {
  constexpr std::uint64_t default_page = 4096;
  constexpr std::uint64_t largest = std::uint64_t{1} << 63;
  const Platform platform = POSTERN_TRY(find_platform(kernel));
  // The largest page that a window for ordinary memory can have.
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const WindowTable table(platform, page);
  const std::uint64_t window = POSTERN_TRY(default_window_size(kernel, platform, devices));
  const std::uint64_t default_table = table.table_size(window, default_page);
  // The kernel creates the default window before any other, and keeps it.
  const std::uint64_t second_table =
      memory.mapped > window ? table.table_size(std::bit_ceil(std::min(memory.mapped, largest)), page) : 0;
  const std::uint64_t tables = default_table + second_table;
  const std::uint64_t groups = group_count(devices);
  // Memory is registered once for all containers of a process (mm_iommu_get). Under a hypervisor, groups of different
  // host bridges cannot share a container.
  LockedMemoryNeed version2{
      .backend = "spapr",
      .version = 2,
      .what = fmt::format("{} to be mapped and {} for tables", size_text(memory.distinct), size_text(tables)),
      .once = memory.distinct,
      .each = tables,
      .containers_at_least = platform == Platform::pseries ? bridge_count(devices) : 1,
      .containers_at_most = groups};
  if (memory.mapped > window) return std::vector{std::move(version2)};  // version 1 has the default window alone
  // Counts the whole window, mapped or not (tce_iommu_enable), and has one group a container.
  LockedMemoryNeed version1{.backend = "spapr",
                            .version = 1,
                            .what = fmt::format("{} for its whole window and table", size_text(window + default_table)),
                            .each = window + default_table,
                            .containers_at_least = groups,
                            .containers_at_most = groups};
  return std::vector{std::move(version2), std::move(version1)};
}

}  // namespace postern::spapr
