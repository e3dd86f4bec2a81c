// SPDX-License-Identifier: Apache-2.0
// QueuePair: a submission queue, its completion queue, and which command ids are under way (NVM Express 1.4,
// section 4.1).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <postern-nvme/controller.hpp>
#include <span>
#include <utility>

#include "nvme/barriers.hpp"
#include "nvme/commands.hpp"
#include "nvme/registers.hpp"

namespace postern::nvme {

// Borrows its memory, which must be zeroes and is left to it alone. One command fewer than there are entries can be
// under way, so neither ring can run over, and what the device says of its head (SQHD) need not be believed: it is not
// read.
class QueuePair {
 public:
  struct Memory {
    std::span<SubmissionEntry> submissions;
    std::span<CompletionEntry> completions;  // as many
  };
  struct Doorbells {
    Doorbell submission;
    Doorbell completion;
  };
  static constexpr std::uint32_t no_id = ~std::uint32_t{0};

  // 2 to 0xffff entries.
  QueuePair(Memory memory, Doorbells doorbells);

  // To submit: ask which id comes next, fill the entry, submit. The id indexes what the caller keeps for each command:
  // it is below entries - 1, or no_id when all are under way.
  [[nodiscard]] std::uint32_t next_id() const noexcept { return next_id_; }
  [[nodiscard]] SubmissionEntry& next_entry() const noexcept { return submissions_[tail_]; }
  void submit() noexcept {
    next_id_ = std::exchange(links_[next_id_], under_way);
    std::uint32_t tail = tail_ + 1;
    if (tail == entries_) tail = 0;
    tail_ = tail;
    write_barrier();
    *doorbells_.submission = swap_unless_little(tail);
  }

  // Takes the next completion's outcome (see CompletionEntry), if it is there. One that answers nothing that is under
  // way stays: the queue stands still then, and stray() names it.
  [[nodiscard]] bool take(std::uint32_t& outcome) noexcept {
    const std::uint32_t head = head_;
    // Id, phase and status lie in one dword, so that one load has all of them or none.
    const std::uint32_t seen = completions_[head].outcome.load();
    if (((seen ^ old_phase_) & phase_bit) == 0) {
      acknowledge();
      return false;
    }
    const std::uint32_t id = seen & 0xffff;
    if (id >= entries_) [[unlikely]]
      return false;
    std::uint32_t& link = links_[id];
    if (link != under_way) [[unlikely]]
      return false;

    read_barrier();
    link = std::exchange(next_id_, id);
    head_ = head + 1;
    if (head + 1 == entries_) [[unlikely]] {
      head_ = 0;
      old_phase_ ^= phase_bit;
    }
    outcome = seen;
    return true;
  }
  // The result of the command that was taken last, until the next call of take().
  [[nodiscard]] std::uint32_t last_result() const noexcept;

  // Whether a completion is there that was not taken, be it a stray one.
  [[nodiscard]] bool has_completion() const noexcept {
    return ((completions_[head_].outcome.load() ^ old_phase_) & phase_bit) != 0;
  }
  // Whether no command is under way. Looks at every id.
  [[nodiscard]] bool idle() const noexcept;
  // The id that the next completion answers, where no command of that id is under way: the device has lost its way.
  [[nodiscard]] std::optional<std::uint16_t> stray() const noexcept;
  // For a controller that is stopped: nothing can be submitted or taken any more, and no doorbell is rung.
  void close() noexcept;

 private:
  static constexpr std::uint32_t phase_bit = 1U << 16;
  static constexpr std::uint32_t under_way = no_id - 1;

  // Tells the device that all that was taken can be written over. Only once nothing is left to take: a write to a
  // register costs more than all the rest, and a device that finds no room before that waits, as it does for any slow
  // reader.
  void acknowledge() noexcept {
    if (acknowledged_ == head_) return;
    acknowledged_ = head_;
    *doorbells_.completion = swap_unless_little(head_);
  }

  SubmissionEntry* submissions_;
  CompletionEntry* completions_;
  Doorbells doorbells_;
  std::unique_ptr<std::uint32_t[]> links_;  // for each id: the free one after it, no_id, or under_way
  std::uint32_t entries_;
  std::uint32_t tail_ = 0;
  std::uint32_t head_ = 0;
  std::uint32_t acknowledged_ = 0;
  std::uint32_t old_phase_ = 0;  // the phase bit of entries that are not new: the device writes ones on its first round
  std::uint32_t next_id_ = 0;
};

[[nodiscard]] constexpr Completed completed(std::uint32_t outcome) noexcept {
  return {.command = static_cast<std::uint16_t>(outcome), .status = static_cast<std::uint16_t>(outcome >> 17)};
}

}  // namespace postern::nvme
