// SPDX-License-Identifier: Apache-2.0
// NvmeController: registers, doorbells, and queues.
#include "sim/devices/nvme/nvme.hpp"

#include <atomic>

#include "sim/devices/nvme/controller.hpp"

namespace postern::sim {

using nvm::Command;
using nvm::Configuration;
using nvm::Outcome;

namespace {

constexpr std::size_t submission_size = 64;
constexpr std::size_t completion_size = 16;

// Section 3.1.24 and 3.1.25, with CAP.DSTRD 0.
constexpr std::size_t tail_doorbell(std::uint16_t queue) { return nvm::at::doorbells + std::size_t{8} * queue; }
constexpr std::size_t head_doorbell(std::uint16_t queue) { return tail_doorbell(queue) + 4; }

Command parse(std::span<const std::byte> entry) {
  return {.opcode = nvm::little_at<std::uint8_t>(entry, 0),
          .flags = nvm::little_at<std::uint8_t>(entry, 1),
          .id = nvm::little_at<std::uint16_t>(entry, 2),
          .nsid = nvm::little_at<std::uint32_t>(entry, 4),
          .prp1 = nvm::little_at<std::uint64_t>(entry, 24),
          .prp2 = nvm::little_at<std::uint64_t>(entry, 32),
          .dword10 = nvm::little_at<std::uint32_t>(entry, 40),
          .dword11 = nvm::little_at<std::uint32_t>(entry, 44),
          .dword12 = nvm::little_at<std::uint32_t>(entry, 48)};
}

}  // namespace

std::unique_ptr<Hardware> make_nvme(std::uint64_t bytes, const char* serial) {
  return std::make_unique<NvmeController>(bytes, serial);
}

const HardwareInfo& NvmeController::info() const {
  static constexpr HardwareInfo info{.vendor = 0x1b36,
                                     .device = 0x0010,
                                     .class_code = 0x010802,
                                     .revision = 2,
                                     .bars = {{{.size = 0x4000}}},
                                     .msix_vectors = vectors,
                                     .has_flr = true};
  return info;
}

void NvmeController::connect(Slot& slot, const Bars& bars) {
  slot_ = &slot;
  registers_ = Registers(bars[0]);
  reset();
}

void NvmeController::reset() {
  reset_queues();
  enabled_ = false;
  csts_ = 0;
  registers_.clear();
  show_registers();
}

bool NvmeController::poll() {
  const std::uint32_t before = csts_;
  follow(configuration());
  std::uint32_t commands = 0;
  if (is_running()) {
    look_at_doorbells();
    commands = run_commands();
  }
  show_registers();
  return csts_ != before || commands > 0;
}

// CC is polled, so this may miss a driver that disables and enables the controller without waiting for CSTS.RDY, as
// section 3.1.5 demands.
void NvmeController::follow(Configuration cc) {
  if (cc.en() != enabled_) {
    enabled_ = cc.en();
    reset_queues();
    csts_ = 0;
    if (enabled_) start(cc);
  }
  // There is no cache, so a shutdown completes at once. Commands then wait for a reset.
  if (cc.shn() == 1 || cc.shn() == 2) csts_ |= nvm::csts::shst_complete;
}

void NvmeController::start(Configuration cc) {
  const std::uint32_t aqa = registers_.read(nvm::at::aqa);
  const std::uint32_t submissions = (aqa & 0xfff) + 1;
  const std::uint32_t completions = (aqa >> 16 & 0xfff) + 1;
  const std::uint64_t asq = registers_.read64(nvm::at::asq);
  const std::uint64_t acq = registers_.read64(nvm::at::acq);
  if (cc.css() != 0 || cc.ams() != 0 || cc.mps() > largest_page_shift) return fail();
  page_size_ = smallest_page << cc.mps();
  if (submissions < 2 || completions < 2 || asq % page_size_ != 0 || acq % page_size_ != 0) return fail();
  add(0, CompletionQueue{.ring = {.base = {acq}, .entries = completions}, .vector = 0});
  add(0, SubmissionQueue{.ring = {.base = {asq}, .entries = submissions}, .completion_queue = 0});
  csts_ = nvm::csts::rdy;
}

void NvmeController::reset_queues() {
  submissions_ = {};
  completions_ = {};
  async_requests_ = 0;
  turn_ = 0;
}

void NvmeController::show_registers() const {
  constexpr std::uint32_t cqr = 1U << 16;
  constexpr std::uint32_t to = 15U << 24;                     // in units of 500 ms
  constexpr std::uint32_t nvm_command_set = 1U << 5;          // CSS, bit 37 of all
  constexpr std::uint32_t mpsmax = largest_page_shift << 20;  // bit 52 of all
  registers_.keep(nvm::at::cap, (most_entries - 1) | cqr | to);
  registers_.keep(nvm::at::cap + 4, nvm_command_set | mpsmax);
  registers_.keep(nvm::at::vs, version);
  registers_.keep(nvm::at::csts, csts_);
}

// Clears the doorbell, which may have a value from an earlier queue of this id, or a stray write. The driver rings it
// only after the queue was created.
void NvmeController::add(std::uint16_t id, SubmissionQueue queue) {
  registers_.write(tail_doorbell(id), 0);
  submissions_[id] = queue;
}
void NvmeController::add(std::uint16_t id, CompletionQueue queue) {
  registers_.write(head_doorbell(id), 0);
  completions_[id] = queue;
}

// An invalid doorbell write value (section 5.2.1): beyond the queue, more commands than fit, or more completions than
// exist. It is fatal here, so that it is not overlooked.
void NvmeController::look_at_doorbells() {
  for (std::uint16_t id = 0; id <= io_queues; ++id) {
    if (submissions_[id]) {
      Ring& ring = submissions_[id]->ring;
      const std::uint32_t tail = registers_.read(tail_doorbell(id));
      if (tail >= ring.entries || ring.used() + ring.distance(ring.tail, tail) >= ring.entries) return fail();
      ring.tail = tail;
    }
    if (completions_[id]) {
      Ring& ring = completions_[id]->ring;
      const std::uint32_t head = registers_.read(head_doorbell(id));
      if (head >= ring.entries || ring.distance(ring.head, head) > ring.used()) return fail();
      ring.head = head;
    }
  }
}

// Runs one command of each queue in turn, until all queues are empty.
std::uint32_t NvmeController::run_commands() {
  std::uint32_t commands = 0;
  for (std::uint32_t idle = 0; idle <= io_queues && commands < most_commands && is_running();) {
    turn_ = turn_ == io_queues ? 0 : static_cast<std::uint16_t>(turn_ + 1);
    if (run_next(turn_)) {
      ++commands;
      idle = 0;
    } else {
      ++idle;
    }
  }
  return commands;
}

// A command stays in its queue until there is space for its completion.
bool NvmeController::run_next(std::uint16_t id) {
  if (!submissions_[id]) return false;
  SubmissionQueue& queue = *submissions_[id];
  Ring& ring = queue.ring;
  if (ring.is_empty() || completions_[queue.completion_queue]->ring.is_full()) return false;
  std::array<std::byte, submission_size> entry{};
  if (!slot_->dma_read(ring.base + ring.head * submission_size, entry)) {
    fail();
    return true;
  }
  ring.head = ring.next(ring.head);
  const Command command = parse(entry);
  const std::optional<Outcome> outcome = id == 0 ? run_admin(command) : std::optional(run_io(command));
  if (outcome) complete(queue, id, command.id, *outcome);
  return true;
}

// Section 4.6. The byte with the phase is written last, so that a driver that sees it sees the rest, in whatever order
// the bytes of one DMA arrive.
void NvmeController::complete(const SubmissionQueue& from, std::uint16_t from_id, std::uint16_t command,
                              Outcome outcome) {
  CompletionQueue& queue = *completions_[from.completion_queue];
  constexpr std::size_t phase_offset = 14;
  const auto status = static_cast<std::uint16_t>(static_cast<std::uint32_t>(outcome.status) << 1);
  const std::uint16_t old_phase = queue.phase ? 0 : 1;
  std::array<std::byte, completion_size> entry{};
  nvm::put_little(entry, 0, outcome.result);
  nvm::put_little(entry, 8, static_cast<std::uint16_t>(from.ring.head));
  nvm::put_little(entry, 10, from_id);
  nvm::put_little(entry, 12, command);
  nvm::put_little(entry, phase_offset, static_cast<std::uint16_t>(status | old_phase));
  const Iova at = queue.ring.base + queue.ring.tail * completion_size;
  bool arrived = slot_->dma_write(at, entry);
  std::atomic_thread_fence(std::memory_order_release);
  entry[phase_offset] ^= std::byte{1};
  arrived = arrived && slot_->dma_write(at + phase_offset, std::span(entry).subspan(phase_offset, 1));
  if (!arrived) return fail();
  queue.ring.tail = queue.ring.next(queue.ring.tail);
  if (queue.ring.tail == 0) queue.phase = !queue.phase;
  if (queue.vector) slot_->interrupt(*queue.vector);
}

}  // namespace postern::sim
