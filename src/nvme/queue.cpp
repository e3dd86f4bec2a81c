// SPDX-License-Identifier: Apache-2.0
// QueuePair: what is not needed for every command.
#include "nvme/queue.hpp"

#include <algorithm>
#include <cstdlib>

namespace postern::nvme {

QueuePair::QueuePair(Memory memory, Doorbells doorbells)
    : submissions_(memory.submissions.data()),
      completions_(memory.completions.data()),
      doorbells_(doorbells),
      links_(std::make_unique<std::uint32_t[]>(memory.submissions.size())),
      entries_(static_cast<std::uint32_t>(memory.submissions.size())) {
  if (entries_ < 2 || entries_ > 0xffff || memory.completions.size() != entries_) std::abort();
  // The last id stays out of use: it ends the list, and is never under way.
  for (std::uint32_t id = 0; id < entries_; ++id) {
    links_[id] = id + 2 < entries_ ? id + 1 : no_id;
  }
}

std::uint32_t QueuePair::last_result() const noexcept {
  // It is not acknowledged yet, so that the device leaves it alone.
  return completions_[head_ == 0 ? entries_ - 1 : head_ - 1].result.load();
}

bool QueuePair::idle() const noexcept {
  return std::none_of(links_.get(), links_.get() + entries_, [](std::uint32_t link) { return link == under_way; });
}

std::optional<std::uint16_t> QueuePair::stray() const noexcept {
  if (!has_completion()) return std::nullopt;
  const std::uint32_t outcome = completions_[head_].outcome.load();
  const auto id = static_cast<std::uint16_t>(outcome);
  if (id < entries_ && links_[id] == under_way) return std::nullopt;
  return id;
}

void QueuePair::close() noexcept {
  next_id_ = no_id;
  acknowledged_ = head_;
  std::fill_n(links_.get(), entries_, no_id);  // so that take() finds nothing under way
}

}  // namespace postern::nvme
