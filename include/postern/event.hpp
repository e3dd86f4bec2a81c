// SPDX-License-Identifier: Apache-2.0
// Event: an eventfd(2), by which the kernel signals interrupts, errors and requests.
#pragma once

#include <chrono>
#include <cstdint>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>

namespace postern {

/// Counts signals. Owns its eventfd. Keep an Event until the interrupt that signals it is disabled; the kernel holds
/// its own reference, so destroying it early is safe, but loses the signals. Thread safety: any thread may signal and
/// wait; each signal is reported to one waiter.
class POSTERN_API Event {
 public:
  /// Creates an event. Errors: EMFILE, ENFILE, ENOMEM (eventfd(2)).
  [[nodiscard]] static Result<Event> create(Kernel& kernel);

  /// Waits for a signal and returns the number of signals since the last wait; 0 after a timeout. milliseconds::max()
  /// waits indefinitely. Errors: those of poll(2) and read(2).
  [[nodiscard]] Result<std::uint64_t> wait(std::chrono::milliseconds timeout) const;

  /// Returns the number of signals since the last wait, possibly 0. Does not block.
  [[nodiscard]] Result<std::uint64_t> take() const { return wait(std::chrono::milliseconds(0)); }

  /// Signals the event, as a device would. For tests, and for one waiter to wake another. Errors: those of write(2).
  [[nodiscard]] Result<void> signal() const;

  /// Returns the eventfd, for poll(2) and epoll(7): readable when a signal is pending. The Event keeps ownership.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit Event(Fd fd) noexcept : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace postern
