// SPDX-License-Identifier: Apache-2.0
// Deadline: when a wait ends.
#pragma once

#include <algorithm>
#include <chrono>

namespace postern {

// So many milliseconds from now. What the clock cannot count is for ever, milliseconds::max() above all; what is
// negative has passed.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  using Milliseconds = std::chrono::milliseconds;

  explicit Deadline(Milliseconds from_now) noexcept {
    const auto now = Clock::now();
    const auto countable = std::chrono::floor<Milliseconds>(never - now);
    end_ = from_now < countable ? now + std::max(from_now, Milliseconds(0)) : never;
  }

  [[nodiscard]] bool is_over() const noexcept { return end_ != never && Clock::now() >= end_; }
  // Rounded up; 0 once it is over.
  [[nodiscard]] Milliseconds left() const noexcept {
    return std::max(std::chrono::ceil<Milliseconds>(end_ - Clock::now()), Milliseconds(0));
  }

 private:
  static constexpr Clock::time_point never = Clock::time_point::max();
  Clock::time_point end_;
};

}  // namespace postern
