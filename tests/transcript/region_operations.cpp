// SPDX-License-Identifier: Apache-2.0
// Reading and writing a device's regions, and mapping them.
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <array>
#include <cstring>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t region_shift = 40;  // VFIO_PCI_OFFSET_SHIFT
constexpr std::uint64_t config = std::uint64_t{VFIO_PCI_CONFIG_REGION_INDEX} << region_shift;
constexpr std::uint64_t config_size = 4096;
constexpr std::uint64_t msix_table = 0x2000;  // in BAR 0
constexpr std::uint64_t msix_table_end = msix_table + std::uint64_t{65} * 16;

// The bits of config space that are the same on every host with such a disk. Excludes the addresses of BARs, other
// values written by the host, and capabilities other than MSI-X.
std::byte common_bits(std::uint64_t offset) {
  constexpr std::uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE;
  if (offset == PCI_COMMAND) return std::byte{command & 0xff};
  if (offset == PCI_COMMAND + 1) return std::byte{command >> 8};
  if (offset == PCI_HEADER_TYPE || offset == PCI_INTERRUPT_LINE) return std::byte{0};
  if (offset >= PCI_BASE_ADDRESS_0 && offset < PCI_BASE_ADDRESS_2) return std::byte{0};
  if (offset >= PCI_SUBSYSTEM_VENDOR_ID && offset < PCI_ROM_ADDRESS) return std::byte{0};
  if (offset == PCI_STATUS || offset == PCI_STATUS + 1) return std::byte{0x10};
  const bool msix_capability = offset == 0x40 || (offset >= 0x42 && offset < 0x4c);
  return offset < 0x40 || msix_capability ? std::byte{0xff} : std::byte{0};
}

std::uint64_t config_offset(World& world) {
  const std::uint64_t kind = world.random.below(100);
  if (kind < 55) return world.random.below(0x40);
  if (kind < 80) return 0x40 + world.random.below(0x10);
  if (kind < 90) return world.random.below(config_size);
  return world.random.pick<std::uint64_t>({config_size - 1, config_size - 3, config_size, config_size + 4,
                                           std::uint64_t{1} << 32, (std::uint64_t{1} << region_shift) - 4});
}

std::string read_config(World& world) {
  const Place& device = any_device(world);
  const std::uint64_t offset = config_offset(world);
  const std::size_t length = world.random.pick<std::size_t>({0, 1, 1, 2, 2, 3, 4, 4, 4, 5, 7, 8, 16, 64});
  std::array<std::byte, 64> bytes{};
  const ssize_t result = world.kernel.pread(device.fd, bytes.data(), length, config + offset);
  std::string line = fmt::format("{} reads config {:#x} length {} -> {}", device.name, offset, length, outcome(result));
  if (result <= 0) return line;
  line += ",";
  for (std::size_t i = 0; i < static_cast<std::size_t>(result) && i < bytes.size(); ++i) {
    const std::byte mask = common_bits(offset + i);
    line += mask == std::byte{0} ? std::string(" --") : fmt::format(" {:02x}", static_cast<unsigned>(bytes[i] & mask));
  }
  return line;
}

// Writes and reads back BARs to find their sizes, which are the same on every host.
std::string size_bar(World& world) {
  const Place& device = any_device(world);
  const std::uint64_t offset = config + PCI_BASE_ADDRESS_0 + 4 * world.random.below(6);
  const std::uint32_t ones = 0xffffffff;
  std::uint32_t before = 0;
  std::uint32_t after = 0;
  (void)world.kernel.pread(device.fd, &before, sizeof before, offset);
  const ssize_t wrote = world.kernel.pwrite(device.fd, &ones, sizeof ones, offset);
  const ssize_t got = world.kernel.pread(device.fd, &after, sizeof after, offset);
  const ssize_t restored = world.kernel.pwrite(device.fd, &before, sizeof before, offset);
  return fmt::format("{} sizes BAR at {:#x} -> {} {} {}, {:#x}", device.name, offset - config, outcome(wrote),
                     outcome(got), outcome(restored), after);
}

// Writes only registers that do not make the device work differently: the command register, unused and read-only ones.
std::string write_config(World& world) {
  const Place& device = any_device(world);
  std::uint64_t offset = world.random.pick<std::uint64_t>(
      {PCI_COMMAND, PCI_COMMAND, PCI_COMMAND, PCI_COMMAND, PCI_COMMAND, PCI_COMMAND + 1, PCI_CACHE_LINE_SIZE,
       PCI_LATENCY_TIMER, PCI_VENDOR_ID, PCI_VENDOR_ID + 1, PCI_INTERRUPT_LINE, PCI_INTERRUPT_PIN, PCI_CLASS_REVISION,
       PCI_CAPABILITY_LIST, PCI_STATUS, config_size - 1, config_size, config_size - 2, 0x200});
  const std::size_t length = offset == PCI_COMMAND ? 2 : world.random.pick<std::size_t>({0, 1, 1, 2});
  const std::uint32_t value =
      offset == PCI_COMMAND || offset == PCI_COMMAND + 1
          ? world.random.pick({0U, 2U, 4U, 6U, 6U, 0x406U, 0x402U, 0x400U}) >> (offset == PCI_COMMAND ? 0 : 8)
          : static_cast<std::uint32_t>(world.random.next());
  const ssize_t result = world.kernel.pwrite(device.fd, &value, length, config + offset);
  return fmt::format("{} writes config {:#x} length {} value {:#x} -> {}", device.name, offset, length, value & 0xffff,
                     outcome(result));
}

// Reads any region but config space. Records only the contents of the MSI-X table, which reads as ones.
std::string read_region(World& world) {
  const Place& device = any_device(world);
  const std::uint64_t index = world.random.chance(70) ? 0 : world.random.pick<std::uint64_t>({1, 5, 6, 8, 9, 10, 255});
  const std::uint64_t offset = world.random.chance(50)
                                   ? msix_table + world.random.below(msix_table_end - msix_table)
                                   : world.random.pick<std::uint64_t>({0, 1, 2, 3, 4, 8, 0x14, 0x1ff8, 0x1ffc, 0x2410,
                                                                       0x3000, 0x3ffc, 0x3fff, 0x4000, 0x10000});
  const std::size_t length = world.random.pick<std::size_t>({0, 1, 2, 4, 4, 4, 8, 12, 16, 64});
  std::array<std::byte, 64> bytes{};
  const ssize_t result = world.kernel.pread(device.fd, bytes.data(), length, (index << region_shift) + offset);
  std::string line =
      fmt::format("{} reads region {} at {:#x} length {} -> {}", device.name, index, offset, length, outcome(result));
  if (result <= 0 || index != 0) return line;
  line += ",";
  for (std::size_t i = 0; i < static_cast<std::size_t>(result); ++i) {
    const bool in_table = offset + i >= msix_table && offset + i < msix_table_end;
    line += in_table ? fmt::format(" {:02x}", static_cast<unsigned>(bytes[i])) : " --";
  }
  return line;
}

// Writes to the MSI-X table, where writes are dropped, and beyond the end of regions.
std::string write_region(World& world) {
  const Place& device = any_device(world);
  const std::uint64_t index = world.random.chance(70) ? 0 : world.random.pick<std::uint64_t>({1, 5, 6, 8, 9, 10, 255});
  const std::uint64_t offset = world.random.pick<std::uint64_t>({0x2000, 0x2004, 0x2100, 0x2201, 0x4000, 0x10000});
  const std::size_t length = world.random.pick<std::size_t>({0, 1, 4, 8, 16});
  const std::array<std::byte, 16> bytes{};
  const ssize_t result = world.kernel.pwrite(device.fd, bytes.data(), length, (index << region_shift) + offset);
  return fmt::format("{} writes region {} at {:#x} length {} -> {}", device.name, index, offset, length,
                     outcome(result));
}

std::string map_region(World& world) {
  const Place& device = any_device(world);
  const std::uint64_t index = world.random.chance(75) ? 0 : world.random.pick<std::uint64_t>({1, 5, 6, 7, 8, 9, 200});
  const std::uint64_t offset = world.random.pick<std::uint64_t>({0, 0, 0, 0x1000, 0x2000, 0x3000, 0x4000, 0x800});
  const std::size_t length = world.random.pick<std::size_t>({0x4000, 0x4000, 0x1000, 0x2000, 0x5000, 0x800, 0});
  const int flags = world.random.chance(90) ? MAP_SHARED : MAP_PRIVATE;
  const int protection = world.random.pick({PROT_READ | PROT_WRITE, PROT_READ, PROT_WRITE, PROT_NONE});
  const std::intptr_t mapped =
      world.kernel.mmap(nullptr, length, protection, flags, device.fd, (index << region_shift) + offset);
  if (!is_errno(mapped)) {
    (void)world.kernel.munmap(reinterpret_cast<void*>(mapped), length);  // NOLINT(performance-no-int-to-ptr)
  }
  return fmt::format("{} maps region {} at {:#x} length {:#x} protection {} {} -> {}", device.name, index, offset,
                     length, protection, flags == MAP_SHARED ? "shared" : "private",
                     is_errno(mapped) ? outcome(mapped) : "ok");
}

constexpr Operation operations[] = {
    {read_config, 24, 24, has_device}, {size_bar, 5, 5, has_device},     {write_config, 16, 16, has_device},
    {read_region, 16, 16, has_device}, {write_region, 8, 8, has_device}, {map_region, 12, 12, has_device},
};

}  // namespace

std::span<const Operation> region_operations() { return operations; }

}  // namespace postern::transcript
