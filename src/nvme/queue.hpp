// SPDX-License-Identifier: Apache-2.0
// QueuePair: a submission queue, its completion queue, and the command ids in flight (NVM Express 1.4, section 4.1).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <postern/barriers.hpp>
#include <span>
#include <utility>

#include "nvme/commands.hpp"
#include "nvme/registers.hpp"

namespace postern::nvme {

// Uses its memory exclusively, but does not own it; it must be zeroed. At most entries - 1 commands are in flight, so
// neither ring overflows, and the device's report of its head (SQHD) is not needed.
class QueuePair {
 public:
  struct Memory {
    std::span<SubmissionEntry> submissions;
    std::span<CompletionEntry> completions;  // as many
  };

  // 2 to 0xffff entries.
  QueuePair(Memory memory, Doorbells doorbells);

  // How many more commands can be submitted; entries - 1 if none is in flight.
  [[nodiscard]] std::uint32_t room() const noexcept { return room_; }

  // Submits a command for each of `commands`, room() at most, with one doorbell. fill(command, id, entry) writes the
  // entry; the id may index the caller's data of a command, and is below entries - 1.
  template <typename Item, typename Fill>
  void submit(std::span<Item> commands, Fill fill) noexcept {
    SubmissionEntry* const first = submissions_.first;
    SubmissionEntry* const end = submissions_.end;
    SubmissionEntry* entry = submissions_.next;
    std::uint32_t* const links = links_.get();
    std::size_t id = next_id_;
    for (Item& command : commands) {
      fill(command, static_cast<std::uint32_t>(id), *entry);
      id = std::exchange(links[id], in_flight);
      if (++entry == end) entry = first;
    }
    next_id_ = static_cast<std::uint32_t>(id);
    submissions_.next = entry;
    room_ -= static_cast<std::uint32_t>(commands.size());
    // Before the device gets new commands, so that it always has space for completions.
    acknowledge();
    doorbells_.submission->write(static_cast<std::uint32_t>(entry - first));
  }

  // Takes the available completions in order, as many as fit, and returns their number. Stops at a completion of a
  // command that is not in flight, which stray() returns.
  [[nodiscard]] std::size_t take(std::span<Completed> space) noexcept {
    const CompletionEntry* const end = completions_.end;
    const CompletionEntry* entry = completions_.next;
    std::uint32_t* const links = links_.get();
    const std::size_t ids = entries_;
    std::size_t next_id = next_id_;
    std::uint32_t old_phase = old_phase_;
    std::size_t taken = 0;
    bool is_empty = false;
    for (; taken < space.size(); ++taken) {
      // Id, phase and status are in one dword, so one load reads all of them consistently.
      const std::uint32_t outcome = entry->outcome.load();
      if (((outcome ^ old_phase) & phase_bit) == 0) {
        is_empty = true;
        break;
      }
      const std::size_t id = outcome & 0xffff;
      if (id >= ids || links[id] != in_flight) [[unlikely]]
        break;
      links[id] = static_cast<std::uint32_t>(std::exchange(next_id, id));
      if (++entry == end) [[unlikely]] {
        entry = completions_.first;
        old_phase ^= phase_bit;
      }
      space[taken] = {.command = static_cast<std::uint16_t>(id), .status = static_cast<std::uint16_t>(outcome >> 17)};
    }
    dma_rmb();  // the caller reads the data next
    next_id_ = static_cast<std::uint32_t>(next_id);
    completions_.next = entry;
    old_phase_ = old_phase;
    room_ += static_cast<std::uint32_t>(taken);
    if (is_empty) acknowledge();
    return taken;
  }
  // The result of the command that was taken last, until the next call of take().
  [[nodiscard]] std::uint32_t last_result() const noexcept;

  // Whether there is a completion that was not taken, also a stray one.
  [[nodiscard]] bool has_completion() const noexcept {
    return ((completions_.next->outcome.load() ^ old_phase_) & phase_bit) != 0;
  }
  // Whether no command is in flight.
  [[nodiscard]] bool idle() const noexcept { return room_ == most_; }
  // The id of the next completion, if no command of that id is in flight: an error of the device.
  [[nodiscard]] std::optional<std::uint16_t> stray() const noexcept;
  // For a stopped controller: nothing can be submitted or taken any more, and no doorbell is rung.
  void close() noexcept;

 private:
  static constexpr std::uint32_t phase_bit = 1U << 16;
  // Values of a link that are not ids.
  static constexpr std::uint32_t end_of_list = ~std::uint32_t{0};
  static constexpr std::uint32_t in_flight = end_of_list - 1;

  // Tells the device that the entries taken can be overwritten. A register write costs more than everything else, so
  // this is delayed until the next submission, or until there is nothing left to take. Until then the device still has
  // enough space: the commands in flight and those taken since were all in flight together.
  void acknowledge() noexcept {
    const CompletionEntry* const head = completions_.next;
    if (acknowledged_ == head) return;
    acknowledged_ = head;
    doorbells_.completion->write(static_cast<std::uint32_t>(head - completions_.first));
  }

  template <typename Entry>
  struct Ring {
    Entry* first;
    Entry* end;
    Entry* next;  // the tail of submissions, the head of completions
  };

  template <typename Entry>
  static Ring<Entry> ring_of(std::span<Entry> entries) noexcept {
    return {.first = entries.data(), .end = entries.data() + entries.size(), .next = entries.data()};
  }

  Ring<SubmissionEntry> submissions_;
  Ring<const CompletionEntry> completions_;
  Doorbells doorbells_;
  std::unique_ptr<std::uint32_t[]> links_;  // for each id: the free one after it, end_of_list, or in_flight
  std::uint32_t entries_;
  std::uint32_t most_ = entries_ - 1;  // commands in flight at once; 0 once it is closed
  std::uint32_t room_ = most_;
  const CompletionEntry* acknowledged_ = completions_.first;
  std::uint32_t old_phase_ = 0;  // the phase bit of old entries; the device writes 1 in its first round
  std::uint32_t next_id_ = 0;
};

}  // namespace postern::nvme
