// SPDX-License-Identifier: Apache-2.0
// QueuePair: functions that are not called for every command.
#include "nvme/queue.hpp"

#include <algorithm>
#include <cstdlib>

namespace postern::nvme {

QueuePair::QueuePair(Memory memory, Doorbells doorbells)
    : submissions_(ring_of(memory.submissions)),
      completions_(ring_of(std::span<const CompletionEntry>(memory.completions))),
      doorbells_(doorbells),
      links_(std::make_unique<std::uint32_t[]>(memory.submissions.size())),
      entries_(static_cast<std::uint32_t>(memory.submissions.size())) {
  if (entries_ < 2 || entries_ > 0xffff || memory.completions.size() != entries_) std::abort();
  // The last id is unused: it ends the list, and is never in flight.
  for (std::uint32_t id = 0; id < entries_; ++id) {
    links_[id] = id + 2 < entries_ ? id + 1 : end_of_list;
  }
}

std::uint32_t QueuePair::last_result() const noexcept {
  // It is not acknowledged yet, so the device does not overwrite it.
  const CompletionEntry* const after = completions_.next == completions_.first ? completions_.end : completions_.next;
  return (after - 1)->result.load();
}

std::optional<std::uint16_t> QueuePair::stray() const noexcept {
  if (!has_completion()) return std::nullopt;
  const std::uint32_t outcome = completions_.next->outcome.load();
  const auto id = static_cast<std::uint16_t>(outcome);
  if (id < entries_ && links_[id] == in_flight) return std::nullopt;
  return id;
}

void QueuePair::close() noexcept {
  most_ = 0;
  room_ = 0;
  acknowledged_ = completions_.next;
  std::fill_n(links_.get(), entries_, end_of_list);  // so that take() finds no command in flight
}

}  // namespace postern::nvme
