// SPDX-License-Identifier: Apache-2.0
// Submission and completion entries (NVM Express 1.4, sections 4.2 and 4.6), and the commands that this driver uses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <postern/little_endian.hpp>

namespace postern::nvme {

// The memory page size of the controller (CC.MPS 0), which is neither the host's nor the IOMMU's.
inline constexpr std::uint64_t page_size = 4096;

struct SubmissionEntry {
  Le64 dwords_0_1;  // opcode in bits 0..7, command id in bits 16..31, namespace in bits 32..63
  Le64 reserved;
  Le64 metadata;
  Le64 prp1;
  Le64 prp2;
  Le64 dwords_10_11;
  Le32 dword_12;
  Le32 dword_13;
  Le32 dword_14;
  Le32 dword_15;
};
static_assert(sizeof(SubmissionEntry) == 64);
static_assert(offsetof(SubmissionEntry, prp1) == 24);
static_assert(offsetof(SubmissionEntry, dwords_10_11) == 40);

struct CompletionEntry {
  Le32 result;
  Le32 reserved;
  Le32 submission_queue;  // head in bits 0..15, id in bits 16..31
  Le32 outcome;           // command id in bits 0..15, phase in bit 16, status in bits 17..31
};
static_assert(sizeof(CompletionEntry) == 16);
static_assert(offsetof(CompletionEntry, outcome) == 12);

enum class AdminOpcode : std::uint8_t {
  delete_submission_queue = 0x00,
  create_submission_queue = 0x01,
  delete_completion_queue = 0x04,
  create_completion_queue = 0x05,
  identify = 0x06,
  set_features = 0x09,
};

// The CNS field of Identify.
enum class Identify : std::uint8_t { name_space = 0, controller = 1, active_namespaces = 2 };

// Zeros in the other bits select PRPs and a command that is not fused.
template <typename Code>
[[nodiscard]] constexpr std::uint64_t dwords_0_1(Code opcode, std::uint32_t id, std::uint32_t namespace_id) noexcept {
  return std::uint64_t{namespace_id} << 32 | id << 16 | static_cast<std::uint32_t>(opcode);
}

// Admin commands are created with id 0; the submitter sets the id.
[[nodiscard]] constexpr SubmissionEntry admin_command(AdminOpcode opcode, std::uint32_t namespace_id,
                                                      Iova data) noexcept {
  SubmissionEntry entry{};
  entry.dwords_0_1 = dwords_0_1(opcode, 0, namespace_id);
  entry.prp1 = data.value;
  return entry;
}

[[nodiscard]] constexpr SubmissionEntry identify(Identify what, std::uint32_t namespace_id, Iova data) noexcept {
  SubmissionEntry entry = admin_command(AdminOpcode::identify, namespace_id, data);
  entry.dwords_10_11 = static_cast<std::uint64_t>(what);
  return entry;
}

// Feature 7, Number of Queues: one of each, encoded as zero.
[[nodiscard]] constexpr SubmissionEntry set_one_queue_pair() noexcept {
  SubmissionEntry entry = admin_command(AdminOpcode::set_features, 0, {});
  entry.dwords_10_11 = 0x07;
  return entry;
}

struct QueueAt {
  std::uint16_t id;
  std::uint16_t entries;
  Iova memory;
};

enum class Signal : std::uint32_t { none = 0, interrupt = 1 };

// Dword 10 of both: id and size, which counts from 0. Bit 0 of dword 11 of both: the memory is contiguous.
[[nodiscard]] constexpr std::uint64_t queue_dwords(QueueAt queue, std::uint32_t dword_11) noexcept {
  return std::uint64_t{dword_11 | 1} << 32 | (queue.entries - 1U) << 16 | queue.id;
}

[[nodiscard]] constexpr SubmissionEntry create_completion_queue(QueueAt queue, Signal signal,
                                                                std::uint16_t vector) noexcept {
  SubmissionEntry entry = admin_command(AdminOpcode::create_completion_queue, 0, queue.memory);
  entry.dwords_10_11 = queue_dwords(queue, std::uint32_t{vector} << 16 | static_cast<std::uint32_t>(signal) << 1);
  return entry;
}

[[nodiscard]] constexpr SubmissionEntry delete_queue(AdminOpcode which, std::uint16_t id) noexcept {
  SubmissionEntry entry = admin_command(which, 0, {});
  entry.dwords_10_11 = id;
  return entry;
}

// Its completions go to the completion queue of the same id.
[[nodiscard]] constexpr SubmissionEntry create_submission_queue(QueueAt queue) noexcept {
  SubmissionEntry entry = admin_command(AdminOpcode::create_submission_queue, 0, queue.memory);
  entry.dwords_10_11 = queue_dwords(queue, std::uint32_t{queue.id} << 16);
  return entry;
}

}  // namespace postern::nvme
