// SPDX-License-Identifier: Apache-2.0
// The registers of an NVMe controller (NVM Express 1.4, section 3.1), in BAR 0.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nvme/little.hpp"

namespace postern::nvme {

enum class Register32 : std::size_t {
  version = 0x08,
  configuration = 0x14,
  status = 0x1c,
  admin_queue_attributes = 0x24
};
enum class Register64 : std::size_t {
  capabilities = 0x00,
  admin_submission_queue = 0x28,
  admin_completion_queue = 0x30
};

inline constexpr std::size_t first_doorbell = 0x1000;

// What every register reads as when the device has gone or does not answer on the bus.
inline constexpr std::uint32_t all_ones = 0xffffffff;

// CAP.
struct Capabilities {
  std::uint64_t raw = 0;

  [[nodiscard]] constexpr std::uint32_t queue_entries() const { return field(0, 16) + 1; }  // MQES, which counts from 0
  [[nodiscard]] constexpr std::chrono::milliseconds timeout() const {                       // TO; 0 is taken as 1
    return std::chrono::milliseconds(500) * std::max(1U, field(24, 8));
  }
  [[nodiscard]] constexpr std::size_t doorbell_stride() const { return std::size_t{4} << field(32, 4); }  // DSTRD
  [[nodiscard]] constexpr bool has_nvm_commands() const { return field(37, 1) != 0; }                     // CSS bit 0
  [[nodiscard]] constexpr std::uint64_t smallest_page() const { return std::uint64_t{4096} << field(48, 4); }  // MPSMIN

 private:
  [[nodiscard]] constexpr std::uint32_t field(unsigned from, unsigned bits) const {
    return static_cast<std::uint32_t>((raw >> from) & ((1U << bits) - 1));
  }
};

// CC. A memory page of 4 KiB (MPS 0), the NVM command set (CSS 0) and round robin (AMS 0) are what zeroes stand for.
namespace configuration {
inline constexpr std::uint32_t enable = 1U << 0;
inline constexpr std::uint32_t shutdown_normal = 1U << 14;
inline constexpr std::uint32_t shutdown_mask = 3U << 14;
inline constexpr std::uint32_t submission_entry_64 = 6U << 16;  // IOSQES, a power of two
inline constexpr std::uint32_t completion_entry_16 = 4U << 20;  // IOCQES
}  // namespace configuration

// CSTS.
namespace status {
inline constexpr std::uint32_t ready = 1U << 0;
inline constexpr std::uint32_t fatal = 1U << 1;
inline constexpr std::uint32_t shutdown_mask = 3U << 2;
inline constexpr std::uint32_t shutdown_complete = 2U << 2;
}  // namespace status

using Doorbell = volatile std::uint32_t*;

// Borrows the mapped BAR.
class Registers {
 public:
  explicit Registers(std::span<std::byte> bar) noexcept : bar_(bar) {}

  [[nodiscard]] std::uint32_t read(Register32 name) const noexcept { return swap_unless_little(*at(offset(name))); }
  void write(Register32 name, std::uint32_t value) const noexcept { *at(offset(name)) = swap_unless_little(value); }

  // A 64-bit register is accessed as two halves, the lower first, which every controller takes.
  [[nodiscard]] std::uint64_t read(Register64 name) const noexcept {
    const std::uint64_t low = swap_unless_little(*at(offset(name)));
    const std::uint64_t high = swap_unless_little(*at(offset(name) + 4));
    return high << 32 | low;
  }
  void write(Register64 name, std::uint64_t value) const noexcept {
    *at(offset(name)) = swap_unless_little(static_cast<std::uint32_t>(value));
    *at(offset(name) + 4) = swap_unless_little(static_cast<std::uint32_t>(value >> 32));
  }

  // Section 3.1.24: the doorbells of a queue pair stand side by side, the submission queue's first.
  [[nodiscard]] Doorbell submission_doorbell(std::uint16_t queue, std::size_t stride) const noexcept {
    return at(first_doorbell + std::size_t{2} * queue * stride);
  }
  [[nodiscard]] Doorbell completion_doorbell(std::uint16_t queue, std::size_t stride) const noexcept {
    return at(first_doorbell + (std::size_t{2} * queue + 1) * stride);
  }
  // Whether the BAR is long enough for the doorbells of queues 0 to `queue`.
  [[nodiscard]] bool has_doorbells(std::uint16_t queue, std::size_t stride) const noexcept {
    return first_doorbell + (std::size_t{2} * queue + 1) * stride + sizeof(std::uint32_t) <= bar_.size();
  }

 private:
  template <typename Name>
  [[nodiscard]] static constexpr std::size_t offset(Name name) noexcept {
    return static_cast<std::size_t>(name);
  }
  [[nodiscard]] Doorbell at(std::size_t offset) const noexcept {
    return reinterpret_cast<Doorbell>(bar_.data() + offset);
  }

  std::span<std::byte> bar_;
};

}  // namespace postern::nvme
