// SPDX-License-Identifier: Apache-2.0
// Constants of NVM Express 1.4 for the simulated controller. The driver (src/nvme) has its own, so that a mistake in
// one of them is found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace postern::sim::nvm {

// Section 3.1: offsets in BAR 0.
namespace at {
inline constexpr std::size_t cap = 0x00;
inline constexpr std::size_t vs = 0x08;
inline constexpr std::size_t cc = 0x14;
inline constexpr std::size_t csts = 0x1c;
inline constexpr std::size_t aqa = 0x24;
inline constexpr std::size_t asq = 0x28;
inline constexpr std::size_t acq = 0x30;
inline constexpr std::size_t doorbells = 0x1000;
}  // namespace at

namespace csts {
inline constexpr std::uint32_t rdy = 1U << 0;
inline constexpr std::uint32_t cfs = 1U << 1;
inline constexpr std::uint32_t shst_complete = 2U << 2;
}  // namespace csts

// CC.
struct Configuration {
  std::uint32_t raw = 0;

  [[nodiscard]] constexpr bool en() const { return (raw & 1) != 0; }
  [[nodiscard]] constexpr std::uint32_t css() const { return raw >> 4 & 7; }
  [[nodiscard]] constexpr std::uint32_t mps() const { return raw >> 7 & 0xf; }
  [[nodiscard]] constexpr std::uint32_t ams() const { return raw >> 11 & 7; }
  [[nodiscard]] constexpr std::uint32_t shn() const { return raw >> 14 & 3; }
  [[nodiscard]] constexpr std::uint32_t iosqes() const { return raw >> 16 & 0xf; }
  [[nodiscard]] constexpr std::uint32_t iocqes() const { return raw >> 20 & 0xf; }
};

// Section 4.6.1: the status code in bits 0 to 7, its type in bits 8 to 10.
enum class Status : std::uint16_t {
  success = 0x000,
  invalid_opcode = 0x001,
  invalid_field = 0x002,
  data_transfer_error = 0x004,
  invalid_namespace = 0x00b,
  command_sequence_error = 0x00c,
  invalid_prp_offset = 0x013,
  lba_out_of_range = 0x080,
  invalid_completion_queue = 0x100,
  invalid_queue_identifier = 0x101,
  invalid_queue_size = 0x102,
  async_event_limit_exceeded = 0x105,
  invalid_interrupt_vector = 0x108,
  invalid_queue_deletion = 0x10c,
  feature_not_saveable = 0x10d,
};

enum class AdminOpcode : std::uint8_t {
  delete_sq = 0x00,
  create_sq = 0x01,
  delete_cq = 0x04,
  create_cq = 0x05,
  identify = 0x06,
  abort = 0x08,
  set_features = 0x09,
  get_features = 0x0a,
  async_event_request = 0x0c,
};

enum class IoOpcode : std::uint8_t { flush = 0x00, write = 0x01, read = 0x02 };

// Section 4.2. Only the fields that this controller uses.
struct Command {
  std::uint8_t opcode = 0;
  std::uint8_t flags = 0;  // FUSE in bits 0 and 1, PSDT in bits 6 and 7
  std::uint16_t id = 0;
  std::uint32_t nsid = 0;
  std::uint64_t prp1 = 0;
  std::uint64_t prp2 = 0;
  std::uint32_t dword10 = 0;
  std::uint32_t dword11 = 0;
  std::uint32_t dword12 = 0;

  // Fused commands and SGLs are not supported.
  [[nodiscard]] bool is_plain() const { return (flags & 0xc3) == 0; }
};

// The result in a completion.
struct Outcome {
  Outcome(Status of) : status(of) {}  // not explicit: most commands return only a status
  Outcome(Status of, std::uint32_t dword0) : status(of), result(dword0) {}

  Status status;
  std::uint32_t result = 0;
};

// All of NVM Express is little-endian.
template <typename Number>
[[nodiscard]] Number little_at(std::span<const std::byte> bytes, std::size_t offset) {
  Number number = 0;
  for (std::size_t i = sizeof(Number); i-- > 0;) {
    number = static_cast<Number>(std::uint64_t{number} << 8 | std::to_integer<std::uint8_t>(bytes[offset + i]));
  }
  return number;
}

template <typename Number>
void put_little(std::span<std::byte> bytes, std::size_t offset, Number number) {
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    bytes[offset + i] = static_cast<std::byte>(std::uint64_t{number} >> 8 * i);
  }
}

}  // namespace postern::sim::nvm
