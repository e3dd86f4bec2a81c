// SPDX-License-Identifier: Apache-2.0
// QEMU's edu device on the kernel under test: finding it, and its registers through the device's fd.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/deadline.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <span>
#include <stdexcept>

#include "support/kernel_under_test.hpp"

namespace postern::test {

// The first function of the host with this id; nothing if there is none.
inline std::optional<PciAddress> find_function(std::uint16_t vendor, std::uint16_t device) {
  const auto functions = list_pci_functions(kernel()).value();
  for (const PciFunction& function : functions) {
    if (function.vendor_id == vendor && function.device_id == device) return function.address;
  }
  return std::nullopt;
}
inline std::optional<PciAddress> find_edu() { return find_function(0x1234, 0x11e8); }

// The registers as in QEMU's docs/specs/edu.rst.
class EduRegisters {
 public:
  static constexpr std::uint64_t buffer = 0x40000;
  static constexpr unsigned address_bits = 28;  // of its DMA engine
  static constexpr std::uint32_t to_memory = 2;

  explicit EduRegisters(const Device& device) : device_(&device) {
    swapped_ = read(0) == __builtin_bswap32(0x010000ed);
  }

  [[nodiscard]] std::uint32_t read(std::uint64_t offset) const {
    std::uint32_t value = 0;
    must(device_->read(0, offset, std::as_writable_bytes(std::span(&value, 1))));
    return swapped_ ? __builtin_bswap32(value) : value;
  }
  void write(std::uint64_t offset, std::uint32_t value) const {
    if (swapped_) value = __builtin_bswap32(value);
    must(device_->write(0, offset, std::as_bytes(std::span(&value, 1))));
  }
  void raise(std::uint32_t bits) const { write(0x60, bits); }
  void acknowledge(std::uint32_t bits) const { write(0x64, bits); }
  // Copies `count` bytes and waits for completion, a tenth of a second with QEMU. Memory addresses are below 4 GiB.
  void copy(std::uint64_t from, std::uint64_t to, std::uint32_t count, std::uint32_t direction) const {
    write(0x80, static_cast<std::uint32_t>(from));
    write(0x88, static_cast<std::uint32_t>(to));
    write(0x90, count);
    write(0x98, 1 | direction);
    const auto has_ended = [this] { return (read(0x98) & 1) == 0; };
    if (!poll_until(Deadline(std::chrono::seconds(10)), std::chrono::milliseconds(1), has_ended))
      throw std::runtime_error("edu's copy does not end");
  }

 private:
  static void must(const Result<void>& done) {
    if (!done) throw std::runtime_error(done.error().message());
  }

  const Device* device_;
  bool swapped_ = false;  // big-endian registers: QEMU's edu on POWER
};

}  // namespace postern::test
