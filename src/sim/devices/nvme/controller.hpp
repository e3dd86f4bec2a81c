// SPDX-License-Identifier: Apache-2.0
// NvmeController: the hardware of make_nvme(): registers and queues are in nvme.cpp, admin commands in admin.cpp, reads
// and writes in io.cpp. Sections and figures are those of NVM Express 1.4.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <postern/iova.hpp>
#include <span>
#include <string>
#include <utility>

#include "sim/devices/hardware.hpp"
#include "sim/devices/nvme/disk.hpp"
#include "sim/devices/nvme/spec.hpp"
#include "sim/devices/registers.hpp"

namespace postern::sim {

class NvmeController final : public Hardware {
 public:
  NvmeController(std::uint64_t bytes, std::string serial) : serial_(std::move(serial)), disk_(bytes, serial_) {}

  [[nodiscard]] const HardwareInfo& info() const override;
  void connect(Slot& slot, const Bars& bars) override;
  void reset() override;
  [[nodiscard]] bool poll() override;

 private:
  static constexpr std::uint32_t version = 0x00010400;  // VS: 1.4
  static constexpr std::uint16_t io_queues = 64;        // of each kind
  static constexpr std::uint32_t vectors = io_queues + 1;
  static constexpr std::uint32_t most_entries = 2048;      // CAP.MQES
  static constexpr std::uint64_t smallest_page = 4096;     // CAP.MPSMIN
  static constexpr std::uint32_t largest_page_shift = 4;   // CAP.MPSMAX: 64 KiB
  static constexpr std::uint8_t transfer_shift = 7;        // MDTS, from the smallest page
  static constexpr std::uint32_t most_async_requests = 4;  // AERL
  static constexpr std::uint32_t most_commands = 64;       // in one poll, for fairness

  // The ring of both kinds of queue. Section 4.1: it is full with one entry left, to distinguish full from empty.
  struct Ring {
    Iova base;
    std::uint32_t entries = 0;
    std::uint32_t head = 0;
    std::uint32_t tail = 0;

    [[nodiscard]] std::uint32_t next(std::uint32_t index) const { return index + 1 == entries ? 0 : index + 1; }
    [[nodiscard]] std::uint32_t distance(std::uint32_t from, std::uint32_t to) const {
      return (to + entries - from) % entries;
    }
    [[nodiscard]] std::uint32_t used() const { return distance(head, tail); }
    [[nodiscard]] bool is_empty() const { return head == tail; }
    [[nodiscard]] bool is_full() const { return next(tail) == head; }
  };
  struct SubmissionQueue {
    Ring ring;
    std::uint16_t completion_queue = 0;
  };
  struct CompletionQueue {
    Ring ring;
    std::optional<std::uint32_t> vector;  // IV, if IEN is set
    bool phase = true;                    // of the next completion
  };

  [[nodiscard]] nvm::Configuration configuration() const { return {registers_.read(nvm::at::cc)}; }
  void follow(nvm::Configuration cc);
  void start(nvm::Configuration cc);
  void reset_queues();
  void fail() { csts_ |= nvm::csts::cfs; }
  [[nodiscard]] bool is_running() const { return csts_ == nvm::csts::rdy; }
  void show_registers() const;

  void add(std::uint16_t id, SubmissionQueue queue);
  void add(std::uint16_t id, CompletionQueue queue);
  void look_at_doorbells();
  [[nodiscard]] std::uint32_t run_commands();
  [[nodiscard]] bool run_next(std::uint16_t id);
  void complete(const SubmissionQueue& from, std::uint16_t from_id, std::uint16_t command, nvm::Outcome outcome);

  // Nothing: not completed yet.
  [[nodiscard]] std::optional<nvm::Outcome> run_admin(const nvm::Command& command);
  [[nodiscard]] nvm::Outcome identify(const nvm::Command& command);
  void describe_controller(std::span<std::byte> data) const;
  void describe_namespace(std::span<std::byte> data) const;
  void list_identifiers(std::span<std::byte> data) const;
  [[nodiscard]] nvm::Outcome create_completion_queue(const nvm::Command& command);
  [[nodiscard]] nvm::Outcome create_submission_queue(const nvm::Command& command);
  [[nodiscard]] nvm::Outcome delete_completion_queue(const nvm::Command& command);
  [[nodiscard]] nvm::Outcome delete_submission_queue(const nvm::Command& command);
  [[nodiscard]] nvm::Outcome set_features(const nvm::Command& command) const;
  [[nodiscard]] nvm::Outcome get_features(const nvm::Command& command) const;
  [[nodiscard]] nvm::Status check_ring(const nvm::Command& command, std::uint32_t entry_shift,
                                       std::uint32_t needed_shift) const;
  [[nodiscard]] bool has_io_queues() const;

  [[nodiscard]] nvm::Outcome run_io(const nvm::Command& command);

  Slot* slot_ = nullptr;
  Registers registers_;
  std::string serial_;
  NvmeDisk disk_;
  bool enabled_ = false;  // CC.EN as last seen
  std::uint32_t csts_ = 0;
  std::uint64_t page_size_ = smallest_page;  // CC.MPS
  // By id; the admin queues have id 0. A submission queue's completion queue exists as long as it does.
  std::array<std::optional<SubmissionQueue>, io_queues + 1> submissions_;
  std::array<std::optional<CompletionQueue>, io_queues + 1> completions_;
  std::uint16_t turn_ = 0;  // the submission queue that was served last
  std::uint32_t async_requests_ = 0;
};

}  // namespace postern::sim
