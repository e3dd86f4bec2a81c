// SPDX-License-Identifier: Apache-2.0
// The registers of an NVMe controller (NVM Express 1.4, section 3.1), in BAR 0.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <postern/registers.hpp>
#include <span>

namespace postern::nvme {

// A 64-bit register, accessed as two halves, the lower first, which every controller supports.
struct Register64 {
  Register<std::uint32_t> low;
  Register<std::uint32_t> high;

  [[nodiscard]] std::uint64_t read() const noexcept {
    const std::uint64_t lower = low.read();
    return std::uint64_t{high.read()} << 32 | lower;
  }
  void write(std::uint64_t value) noexcept {
    low.write(static_cast<std::uint32_t>(value));
    high.write(static_cast<std::uint32_t>(value >> 32));
  }
};

struct Registers {
  Register64 capabilities;                // CAP
  Register<std::uint32_t> version;        // VS
  std::uint32_t interrupt_mask_set;       // INTMS; like the next, not to be accessed with MSI-X
  std::uint32_t interrupt_mask_clear;     // INTMC
  Register<std::uint32_t> configuration;  // CC
  std::uint32_t reserved;
  Register<std::uint32_t> status;                  // CSTS
  std::uint32_t subsystem_reset;                   // NSSR
  Register<std::uint32_t> admin_queue_attributes;  // AQA
  Register64 admin_submission_queue;               // ASQ
  Register64 admin_completion_queue;               // ACQ
};
static_assert(offsetof(Registers, configuration) == 0x14);
static_assert(offsetof(Registers, status) == 0x1c);
static_assert(offsetof(Registers, admin_queue_attributes) == 0x24);
static_assert(sizeof(Registers) == 0x38);

// The value of every register if the device was removed or does not respond.
inline constexpr std::uint32_t all_ones = 0xffffffff;

// CAP.
struct Capabilities {
  std::uint64_t raw = 0;

  [[nodiscard]] constexpr std::uint32_t queue_entries() const { return field(0, 16) + 1; }  // MQES, zero-based
  [[nodiscard]] constexpr std::chrono::milliseconds timeout() const {                       // TO; 0 is treated as 1
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

// CC. A memory page of 4 KiB (MPS 0), the NVM command set (CSS 0) and round robin (AMS 0) are encoded as zeros.
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

using Doorbell = Register<std::uint32_t>;

// Section 3.1.24: the doorbells of a queue pair are adjacent, the submission queue's first.
struct Doorbells {
  Doorbell* submission;
  Doorbell* completion;
};

inline constexpr std::size_t first_doorbell = 0x1000;

// Returns those of queue pair `queue`; nothing if BAR 0 is too short for them.
[[nodiscard]] inline std::optional<Doorbells> find_doorbells(std::span<std::byte> bar, std::uint16_t queue,
                                                             std::size_t stride) {
  const std::uint64_t offset = first_doorbell + std::uint64_t{2} * queue * stride;
  const auto submission = registers_at<Doorbell>(bar, offset);
  const auto completion = registers_at<Doorbell>(bar, offset + stride);
  if (!submission || !completion) return std::nullopt;
  return Doorbells{.submission = *submission, .completion = *completion};
}

}  // namespace postern::nvme
