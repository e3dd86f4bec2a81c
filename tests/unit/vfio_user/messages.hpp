// SPDX-License-Identifier: Apache-2.0
// Messages of vfio-user as clients send them, and the files that come with them.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <postern/event.hpp>
#include <postern/fd.hpp>
#include <postern/pci_device.hpp>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "vfio_user/wire/layout.hpp"

namespace postern::vfio_user::rig {

inline constexpr std::uint64_t page = 4096;
inline constexpr std::uint32_t most32 = ~std::uint32_t{0};
inline constexpr std::uint64_t most64 = ~std::uint64_t{0};

// Flags of SET_IRQS.
inline constexpr std::uint32_t off = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;  // with count 0
inline constexpr std::uint32_t trigger = off;                                               // with another count
inline constexpr std::uint32_t signal_eventfds = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
inline constexpr std::uint32_t mask = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
inline constexpr std::uint32_t unmask = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;

// What QEMU 11.1.3 sends with VERSION.
inline constexpr std::string_view qemu_capabilities =
    R"({"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, "max_data_xfer_size": 1048576, )"
    R"("migration": {"max_bitmap_size": 268435456, "pgsize": 4096}, "write_multiple": true}})";
static_assert(sizeof(Header) + 4 + qemu_capabilities.size() + 1 == 214);

using Bytes = std::vector<std::byte>;

// Appends plain data, texts (without a NUL) and bytes.
template <typename Part>
void append(Bytes& bytes, const Part& part) {
  std::span<const std::byte> added;
  if constexpr (std::is_convertible_v<const Part&, std::string_view>) {
    const std::string_view text = part;
    added = std::as_bytes(std::span(text.data(), text.size()));
  } else if constexpr (std::is_convertible_v<const Part&, std::span<const std::byte>>) {
    added = part;
  } else {
    static_assert(std::is_trivially_copyable_v<Part>);
    added = std::as_bytes(std::span(&part, 1));
  }
  bytes.insert(bytes.end(), added.begin(), added.end());
}
template <typename... Parts>
Bytes bytes_of(const Parts&... parts) {
  Bytes bytes;
  (append(bytes, parts), ...);
  return bytes;
}

// Reads plain data out of bytes; zeros, and a failure, if they are too few.
template <typename Body>
Body at(std::span<const std::byte> bytes, std::size_t offset = 0) {
  Body body{};
  EXPECT_GE(bytes.size(), offset + sizeof body);
  if (bytes.size() >= offset + sizeof body) std::memcpy(&body, bytes.data() + offset, sizeof body);
  return body;
}

// A message to send. The descriptors are the test's.
struct Call {
  Command command;
  Bytes body = {};
  std::vector<int> fds = {};
  std::uint32_t flags = 0;
};

inline Header header_of(const Call& call, std::uint16_t id = 1) {
  return {.id = id,
          .command = static_cast<std::uint16_t>(call.command),
          .size = static_cast<std::uint32_t>(sizeof(Header) + call.body.size()),
          .flags = call.flags,
          .error = 0};
}
// Without a reply.
inline Call posted(Call call) {
  call.flags |= flag_no_reply;
  return call;
}

inline Call version(std::string_view json = qemu_capabilities, std::uint16_t minor = 0, std::uint16_t major = 0) {
  return {.command = Command::version, .body = bytes_of(major, minor, json, '\0')};
}
inline Call map(std::uint64_t iova, std::uint64_t size, int fd = -1, std::uint64_t offset = 0,
                std::uint32_t flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE) {
  Call call{.command = Command::dma_map,
            .body = bytes_of(
                DmaMapBody{.argsz = sizeof(DmaMapBody), .flags = flags, .offset = offset, .iova = iova, .size = size})};
  if (fd >= 0) call.fds = {fd};
  return call;
}
inline Call unmap(std::uint64_t iova, std::uint64_t size, std::uint32_t flags = 0) {
  return {.command = Command::dma_unmap,
          .body = bytes_of(DmaUnmapBody{.argsz = sizeof(DmaUnmapBody), .flags = flags, .iova = iova, .size = size})};
}
inline Call unmap_everything() { return unmap(0, 0, unmap_all); }
inline Call get_info() {
  return {
      .command = Command::device_get_info,
      .body = bytes_of(DeviceInfoBody{.argsz = sizeof(DeviceInfoBody), .flags = 0, .num_regions = 0, .num_irqs = 0})};
}
inline Call region_info(std::uint32_t index) {
  return {.command = Command::device_get_region_info,
          .body = bytes_of(RegionInfoBody{
              .argsz = sizeof(RegionInfoBody), .flags = 0, .index = index, .cap_offset = 0, .size = 0, .offset = 0})};
}
inline Call irq_info(std::uint32_t index) {
  return {.command = Command::device_get_irq_info,
          .body = bytes_of(IrqInfoBody{.argsz = sizeof(IrqInfoBody), .flags = 0, .index = index, .count = 0})};
}
inline Call set_irqs(std::uint32_t index, std::uint32_t flags, std::uint32_t start, std::uint32_t count,
                     std::vector<int> fds = {}, const Bytes& booleans = {}) {
  return {.command = Command::device_set_irqs,
          .body = bytes_of(
              IrqSetBody{.argsz = sizeof(IrqSetBody), .flags = flags, .index = index, .start = start, .count = count},
              booleans),
          .fds = std::move(fds)};
}
inline Call read_region(std::uint32_t region, std::uint64_t offset, std::uint32_t count) {
  return {.command = Command::region_read,
          .body = bytes_of(RegionAccessBody{.offset = offset, .region = region, .count = count})};
}
template <typename Value>
Call write_region(std::uint32_t region, std::uint64_t offset, const Value& value) {
  const Bytes data = bytes_of(value);
  const auto count = static_cast<std::uint32_t>(data.size());
  return {.command = Command::region_write,
          .body = bytes_of(RegionAccessBody{.offset = offset, .region = region, .count = count}, data)};
}
inline Call set_command(std::uint16_t value) { return write_region(pci_config, PCI_COMMAND, value); }
inline Call reset_device() { return {.command = Command::device_reset}; }
// One of up to 8 bytes for REGION_WRITE_MULTI.
template <typename Value>
RegionWriteBody one_write(std::uint32_t region, std::uint64_t offset, Value value) {
  static_assert(sizeof value <= sizeof(RegionWriteBody::data));
  RegionWriteBody body{.access = {.offset = offset, .region = region, .count = sizeof value}, .data = {}};
  std::memcpy(body.data, &value, sizeof value);
  return body;
}
inline Call write_several(const std::vector<RegionWriteBody>& writes) {
  Bytes body = bytes_of(static_cast<std::uint64_t>(writes.size()));
  for (const RegionWriteBody& write : writes) append(body, write);
  return {.command = Command::region_write_multi, .body = std::move(body)};
}

// A memfd of the client's.
inline Fd make_memory(std::uint64_t length, unsigned flags = 0) {
  Fd file(system_kernel(), ::memfd_create("client memory", MFD_CLOEXEC | flags));
  EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(length)), 0);
  return file;
}
// The same file, opened anew with other flags.
inline Fd reopened(const Fd& file, int flags) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  Fd other(system_kernel(), ::open(path.c_str(), flags | O_CLOEXEC));
  EXPECT_TRUE(other);
  return other;
}
inline Event make_event() { return Event::create(system_kernel()).value(); }
inline std::vector<Event> make_events(std::size_t count) {
  std::vector<Event> events;
  for (std::size_t i = 0; i < count; ++i) events.push_back(make_event());
  return events;
}
inline std::vector<int> fds_of(std::span<const Event> events) {
  std::vector<int> fds;
  for (const Event& event : events) fds.push_back(event.fd());
  return fds;
}

// How many descriptors this process has open.
inline std::size_t open_files() {
  std::vector<std::string> names;
  EXPECT_EQ(system_kernel().list_directory("/proc/self/fd", names), 0);
  return names.size();
}

// What QEMU 11.1.3 sends in the life of a guest, shortened; it is answered without any error.
struct Guest {
  int memory;             // a file of `memory_length` bytes
  int event;              // an eventfd
  bool has_msix = true;   // the device
  bool can_reset = true;  // the device
  std::uint32_t config_length = 4096;

  static constexpr std::uint64_t memory_length = 0x200000;
};
inline std::vector<Call> life_of(const Guest& guest) {
  constexpr std::uint32_t intx = VFIO_PCI_INTX_IRQ_INDEX;
  constexpr std::uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
  constexpr std::uint32_t read_only = VFIO_DMA_MAP_FLAG_READ;
  std::vector<Call> calls;
  const auto add = [&](Call call) { calls.push_back(std::move(call)); };
  // At realize.
  add(version());
  add(map(0, 0xa0000, guest.memory));
  add(map(0xc0000, 0x3000, guest.memory, 0xc0000, read_only));
  add(map(0xe0000, 0x20000, guest.memory, 0xe0000, read_only));
  add(map(0x100000, 0x100000, guest.memory, 0x100000));
  add(map(0xfd000000, 0x1000000));                  // the VGA's memory
  add(map(0xfffc0000, 0x40000, -1, 0, read_only));  // the firmware
  add(get_info());
  for (const std::uint32_t index : {0U, 1U, 2U, 3U, 4U, 5U, 7U}) add(region_info(index));
  add(irq_info(VFIO_PCI_ERR_IRQ_INDEX));
  if (guest.has_msix) add(irq_info(msix));
  add(read_region(pci_config, 0, guest.config_length));
  add(write_region(pci_config, PCI_ROM_ADDRESS, std::uint32_t{0xfffff800}));
  add(read_region(pci_config, PCI_ROM_ADDRESS, 4));
  add(write_region(pci_config, PCI_ROM_ADDRESS, std::uint32_t{0}));
  add(read_region(pci_config, PCI_INTERRUPT_PIN, 1));
  add(set_irqs(intx, signal_eventfds, 0, 1, {guest.event}));
  add(set_irqs(VFIO_PCI_ERR_IRQ_INDEX, signal_eventfds, 0, 1, {guest.event}));
  // At the machine's reset.
  add(set_irqs(intx, off, 0, 0));
  add(read_region(pci_config, PCI_COMMAND, 2));
  add(set_command(PCI_COMMAND_MEMORY));
  if (guest.can_reset) add(reset_device());
  add(read_region(pci_config, PCI_INTERRUPT_PIN, 1));
  add(set_irqs(intx, signal_eventfds, 0, 1, {guest.event}));
  for (std::uint32_t bar = 0; bar < 6; ++bar)
    add(write_region(pci_config, PCI_BASE_ADDRESS_0 + 4 * bar, std::uint32_t{0}));
  // The firmware: it makes its shadow writable.
  add(unmap(0xc0000, 0x3000));
  add(map(0xc0000, 0x3000, guest.memory, 0xc0000));
  add(write_region(pci_config, PCI_BASE_ADDRESS_0, std::uint32_t{0xfe800000}));
  add(set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER));
  add(read_region(0, 0, 8));
  add(posted(write_region(0, 0x24, std::uint32_t{0x001f001f})));
  add(set_irqs(intx, unmask, 0, 1));
  // The guest's driver.
  if (guest.has_msix) {
    add(set_irqs(intx, off, 0, 0));
    add(set_irqs(msix, signal_eventfds, 0, 1));
    for (std::uint32_t vector = 0; vector < 3; ++vector) add(set_irqs(msix, signal_eventfds, vector, 1, {guest.event}));
    add(read_region(0, 0x3000, 8));
  }
  add(read_region(pci_config, PCI_STATUS, 2));
  return calls;
}

}  // namespace postern::vfio_user::rig
