// SPDX-License-Identifier: Apache-2.0
// Deadline: when a wait ends; and poll_until(), which waits for a condition.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <postern/barriers.hpp>
#include <postern/export.hpp>  // names the option where the standard is older
#include <thread>

namespace postern {

/// A point in time, by a clock that nobody sets (CLOCK_MONOTONIC). Thread safety: as int.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;         ///< monotonic
  using Milliseconds = std::chrono::milliseconds;  ///< the unit of timeouts

  /// `from_now` milliseconds from now. A negative number is a deadline that has passed; milliseconds::max(), and what
  /// else is beyond the clock's range, one that never does.
  explicit Deadline(Milliseconds from_now) noexcept {
    const auto now = Clock::now();
    const auto countable = std::chrono::floor<Milliseconds>(never - now);
    end_ = from_now < countable ? now + std::max(from_now, Milliseconds(0)) : never;
  }

  /// Whether it has passed.
  [[nodiscard]] bool is_over() const noexcept { return end_ != never && Clock::now() >= end_; }
  /// The time left, rounded up; 0 once it has passed.
  [[nodiscard]] Milliseconds left() const noexcept {
    return std::max(std::chrono::ceil<Milliseconds>(end_ - Clock::now()), Milliseconds(0));
  }

 private:
  static constexpr Clock::time_point never = Clock::time_point::max();
  Clock::time_point end_;
};

/// Calls `condition` until it returns true or the deadline passes; returns whether it returned true. Sleeps for `pause`
/// between two calls, or spins if that is 0. The last call begins after the deadline: what has happened by then is
/// found, however long the thread did not run. Throws only what `condition` throws.
template <std::predicate Condition>
[[nodiscard]] bool poll_until(const Deadline& deadline, std::chrono::microseconds pause, Condition condition) {
  for (;;) {
    const bool is_last = deadline.is_over();
    if (condition()) return true;
    if (is_last) return false;
    if (pause > pause.zero()) {
      std::this_thread::sleep_for(std::min<std::chrono::microseconds>(pause, deadline.left()));
    } else {
      cpu_relax();
    }
  }
}

}  // namespace postern
