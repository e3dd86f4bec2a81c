// SPDX-License-Identifier: Apache-2.0
// NvmeController: admin commands (NVM Express 1.4, section 5).
#include <algorithm>
#include <string_view>
#include <vector>

#include "sim/devices/nvme/controller.hpp"
#include "sim/devices/nvme/prp.hpp"

namespace postern::sim {

using nvm::AdminOpcode;
using nvm::Command;
using nvm::Outcome;
using nvm::Status;

namespace {

constexpr std::size_t identify_size = 4096;
constexpr std::uint32_t number_of_queues = 0x07;

// Dwords 10 and 11 of Create and Delete.
std::uint32_t queue_of(const Command& command) { return command.dword10 & 0xffff; }
std::uint32_t entries_of(const Command& command) { return (command.dword10 >> 16) + 1; }

void put_text(std::span<std::byte> field, std::string_view text) {
  std::fill(field.begin(), field.end(), std::byte{' '});
  for (std::size_t i = 0; i < std::min(field.size(), text.size()); ++i) field[i] = static_cast<std::byte>(text[i]);
}

}  // namespace

std::optional<Outcome> NvmeController::run_admin(const Command& command) {
  if (!command.is_plain()) return Status::invalid_field;
  switch (static_cast<AdminOpcode>(command.opcode)) {
    case AdminOpcode::delete_sq:
      return delete_submission_queue(command);
    case AdminOpcode::create_sq:
      return create_submission_queue(command);
    case AdminOpcode::delete_cq:
      return delete_completion_queue(command);
    case AdminOpcode::create_cq:
      return create_completion_queue(command);
    case AdminOpcode::identify:
      return identify(command);
    case AdminOpcode::abort:
      return Outcome(Status::success, 1);  // bit 0: not aborted, since nothing is in flight while this runs
    case AdminOpcode::set_features:
      return set_features(command);
    case AdminOpcode::get_features:
      return get_features(command);
    case AdminOpcode::async_event_request:
      if (async_requests_ == most_async_requests) return Status::async_event_limit_exceeded;
      ++async_requests_;
      return std::nullopt;  // events never occur
  }
  return Status::invalid_opcode;
}

// Figure 244: CNS selects what to identify.
Outcome NvmeController::identify(const Command& command) {
  constexpr std::uint32_t no_namespaces_from = 0xfffffffe;
  std::array<std::byte, identify_size> data{};
  switch (command.dword10 & 0xff) {
    case 0x00:
      if (command.nsid != 1) return Status::invalid_namespace;
      describe_namespace(data);
      break;
    case 0x01:
      describe_controller(data);
      break;
    case 0x02:  // the active namespaces above the given one
      if (command.nsid >= no_namespaces_from) return Status::invalid_namespace;
      if (command.nsid == 0) nvm::put_little(data, 0, std::uint32_t{1});
      break;
    case 0x03:  // Linux finds no namespace without one of its identifiers
      if (command.nsid != 1) return Status::invalid_namespace;
      list_identifiers(data);
      break;
    default:
      return Status::invalid_field;
  }
  std::vector<NvmePiece> pieces;
  const Status found = find_pieces(*slot_, command, data.size(), page_size_, pieces);
  if (found == Status::success) send(*slot_, pieces, data);
  return found;
}

// Figure 247. Fields left at zero are unsupported or unused.
void NvmeController::describe_controller(std::span<std::byte> data) const {
  const auto put8 = [&](std::size_t offset, std::uint8_t value) { nvm::put_little(data, offset, value); };
  const auto put16 = [&](std::size_t offset, std::uint16_t value) { nvm::put_little(data, offset, value); };
  const auto put32 = [&](std::size_t offset, std::uint32_t value) { nvm::put_little(data, offset, value); };
  put16(0, info().vendor);  // VID
  put16(2, info().vendor);  // SSVID
  put_text(data.subspan(4, 20), serial_);
  put_text(data.subspan(24, 40), "postern simulated NVMe");
  put_text(data.subspan(64, 8), "1.0");
  put8(77, transfer_shift);            // MDTS
  put32(80, version);                  // VER
  put8(111, 1);                        // CNTRLTYPE: an I/O controller
  put8(258, 3);                        // ACL: 4 of Abort at a time
  put8(259, most_async_requests - 1);  // AERL
  put8(260, 0x03);                     // FRMW: one slot, which cannot be written
  put16(266, 343);                     // WCTEMP, in kelvins
  put16(268, 373);                     // CCTEMP
  put8(512, 0x66);                     // SQES: only 64 bytes
  put8(513, 0x44);                     // CQES: 16 bytes
  put32(516, 1);                       // NN
  put8(525, 0x04);                     // VWC: no cache; Flush does not support broadcast
}

// Figure 245.
void NvmeController::describe_namespace(std::span<std::byte> data) const {
  nvm::put_little(data, 0, disk_.blocks());            // NSZE
  nvm::put_little(data, 8, disk_.blocks());            // NCAP
  nvm::put_little(data, 16, disk_.blocks());           // NUSE
  nvm::put_little(data, 128, std::uint32_t{9} << 16);  // LBAF0.LBADS: blocks of 2^9 bytes, without metadata
}

// Figure 249: one identifier, a UUID of version 8 (RFC 9562) that is made of the serial number.
void NvmeController::list_identifiers(std::span<std::byte> data) const {
  nvm::put_little(data, 0, std::uint8_t{3});   // NIDT: a UUID
  nvm::put_little(data, 1, std::uint8_t{16});  // NIDL
  const std::span<std::byte> uuid = data.subspan(4, 16);
  put_text(uuid, serial_);
  uuid[6] = (uuid[6] & std::byte{0x0f}) | std::byte{0x80};  // version
  uuid[8] = (uuid[8] & std::byte{0x3f}) | std::byte{0x80};  // variant
}

// For both kinds of queue: the size, the entry size in CC, and the address.
Status NvmeController::check_ring(const Command& command, std::uint32_t entry_shift, std::uint32_t needed_shift) const {
  const bool is_contiguous = (command.dword11 & 1) != 0;
  if (entries_of(command) < 2 || entries_of(command) > most_entries) return Status::invalid_queue_size;
  if (entry_shift != needed_shift) return Status::invalid_queue_size;
  if (!is_contiguous) return Status::invalid_field;  // CAP.CQR
  if (command.prp1 % page_size_ != 0) return Status::invalid_prp_offset;
  return Status::success;
}

Outcome NvmeController::create_completion_queue(const Command& command) {
  const std::uint32_t id = queue_of(command);
  const std::uint32_t vector = command.dword11 >> 16;
  const bool has_interrupt = (command.dword11 & 2) != 0;
  if (id == 0 || id > io_queues || completions_[id]) return Status::invalid_queue_identifier;
  if (const Status fits = check_ring(command, configuration().iocqes(), 4); fits != Status::success) return fits;
  if (vector >= vectors) return Status::invalid_interrupt_vector;
  add(static_cast<std::uint16_t>(id), CompletionQueue{.ring = {.base = {command.prp1}, .entries = entries_of(command)},
                                                      .vector = has_interrupt ? std::optional(vector) : std::nullopt});
  return Status::success;
}

Outcome NvmeController::create_submission_queue(const Command& command) {
  const std::uint32_t id = queue_of(command);
  const std::uint32_t completions = command.dword11 >> 16;
  if (id == 0 || id > io_queues || submissions_[id]) return Status::invalid_queue_identifier;
  if (completions == 0 || completions > io_queues) return Status::invalid_queue_identifier;
  if (!completions_[completions]) return Status::invalid_completion_queue;
  if (const Status fits = check_ring(command, configuration().iosqes(), 6); fits != Status::success) return fits;
  add(static_cast<std::uint16_t>(id), SubmissionQueue{.ring = {.base = {command.prp1}, .entries = entries_of(command)},
                                                      .completion_queue = static_cast<std::uint16_t>(completions)});
  return Status::success;
}

// Section 7.4.3: submitted commands that have not run are discarded with it.
Outcome NvmeController::delete_submission_queue(const Command& command) {
  const std::uint32_t id = queue_of(command);
  if (id == 0 || id > io_queues || !submissions_[id]) return Status::invalid_queue_identifier;
  submissions_[id].reset();
  return Status::success;
}

Outcome NvmeController::delete_completion_queue(const Command& command) {
  const std::uint32_t id = queue_of(command);
  if (id == 0 || id > io_queues || !completions_[id]) return Status::invalid_queue_identifier;
  const bool in_use = std::any_of(submissions_.begin(), submissions_.end(),
                                  [&](const auto& queue) { return queue && queue->completion_queue == id; });
  if (in_use) return Status::invalid_queue_deletion;
  completions_[id].reset();
  return Status::success;
}

bool NvmeController::has_io_queues() const {
  return std::any_of(completions_.begin() + 1, completions_.end(), [](const auto& queue) { return queue.has_value(); });
}

// Section 5.21.1.7: grants all queues, whatever was requested. Request and result are zero-based.
Outcome NvmeController::set_features(const Command& command) const {
  const bool save = (command.dword10 >> 31) != 0;
  if ((command.dword10 & 0xff) != number_of_queues) return Status::invalid_field;
  if (save) return Status::feature_not_saveable;
  if ((command.dword11 & 0xffff) == 0xffff || command.dword11 >> 16 == 0xffff) return Status::invalid_field;
  if (has_io_queues()) return Status::command_sequence_error;
  return get_features({.dword10 = number_of_queues});
}

Outcome NvmeController::get_features(const Command& command) const {
  const std::uint32_t select = command.dword10 >> 8 & 7;  // 0: the current value, the only one
  if ((command.dword10 & 0xff) != number_of_queues || select != 0) return Status::invalid_field;
  return {Status::success, (io_queues - 1U) << 16 | (io_queues - 1U)};
}

}  // namespace postern::sim
