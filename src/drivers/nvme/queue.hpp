// SPDX-License-Identifier: Apache-2.0
// QueuePair: a submission queue, its completion queue, and which command ids are under way (NVM Express 1.4,
// section 4.1).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <postern/nvme.hpp>
#include <span>

#include "drivers/nvme/barriers.hpp"
#include "drivers/nvme/commands.hpp"
#include "drivers/nvme/registers.hpp"

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
  static constexpr std::uint16_t no_id = 0xffff;

  // 2 to 0xffff entries.
  QueuePair(Memory memory, Doorbells doorbells);

  // To submit: ask which id comes next, fill the entry, submit. The id indexes what the caller keeps for each command;
  // it is below entries - 1, or no_id when all are under way.
  [[nodiscard]] std::uint16_t next_id() const noexcept { return next_id_; }
  [[nodiscard]] SubmissionEntry& next_entry() const noexcept { return submissions_[tail_]; }
  void submit() noexcept {
    next_id_ = std::exchange(links_[next_id_], under_way);
    tail_ = tail_ + 1 == entries_ ? 0 : tail_ + 1;
    write_barrier();
    *doorbells_.submission = swap_unless_little(tail_);
  }

  // The next completion, if it is there; its result goes to `result`. One that answers nothing that is under way is not
  // taken: the queue stands still then, and stray() names it.
  [[nodiscard]] std::optional<Completed> poll(std::uint32_t* result = nullptr) noexcept {
    const CompletionEntry& entry = completions_[head_];
    // Id, phase and status lie in one dword, so that one load has them all, or none.
    const std::uint32_t outcome = entry.outcome.load();
    if (((outcome >> 16) & 1) != phase_) return std::nullopt;
    const auto id = static_cast<std::uint16_t>(outcome);
    if (id >= entries_ || links_[id] != under_way) [[unlikely]]
      return std::nullopt;

    read_barrier();
    if (result != nullptr) *result = entry.result.load();
    links_[id] = std::exchange(next_id_, id);
    if (++head_ == entries_) {
      head_ = 0;
      phase_ ^= 1;
    }
    *doorbells_.completion = swap_unless_little(head_);
    return Completed{.command = id, .status = static_cast<std::uint16_t>(outcome >> 17)};
  }

  // Whether no command is under way. Looks at every id.
  [[nodiscard]] bool idle() const noexcept;
  // The id that the next completion answers, where no command of that id is under way: the device has lost its way.
  [[nodiscard]] std::optional<std::uint16_t> stray() const noexcept;
  // No further command can be submitted: next_id() stays no_id. For a controller that is stopped; no poll() after it.
  void close() noexcept { next_id_ = no_id; }

 private:
  // What links_ has for an id that is under way. No id and not no_id.
  static constexpr std::uint16_t under_way = 0xfffe;

  SubmissionEntry* submissions_;
  CompletionEntry* completions_;
  Doorbells doorbells_;
  std::unique_ptr<std::uint16_t[]> links_;  // for each id: the free one after it, no_id, or under_way
  std::uint32_t entries_;
  std::uint32_t tail_ = 0;
  std::uint32_t head_ = 0;
  std::uint32_t phase_ = 1;  // of entries that are new: the device writes ones first, on the second round zeroes
  std::uint16_t next_id_ = 0;
};

}  // namespace postern::nvme
