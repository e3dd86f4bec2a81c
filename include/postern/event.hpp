// SPDX-License-Identifier: Apache-2.0
// Event: an eventfd(2), through which the kernel tells of interrupts, errors and requests.
#pragma once

#include <chrono>
#include <cstdint>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>

namespace postern {

// Counts signals. Owns its eventfd; whoever gave it to a device must keep it until the interrupt is off again (the
// kernel holds a reference of its own, so nothing breaks if it goes early: the signals are just not seen). Thread
// rules: any thread may signal and wait; each signal is seen by one waiter.
class POSTERN_API Event {
 public:
  // Errors: EMFILE, ENFILE, ENOMEM (eventfd(2)).
  [[nodiscard]] static Result<Event> create(Kernel& kernel);

  // The number of signals since the last wait, waiting until there is one: for ever with milliseconds::max(). Zero when
  // the time has passed without any. Errors: those of poll(2) and read(2).
  [[nodiscard]] Result<std::uint64_t> wait(std::chrono::milliseconds timeout) const;

  // The number of signals since the last wait; zero if there was none. Does not block.
  [[nodiscard]] Result<std::uint64_t> take() const { return wait(std::chrono::milliseconds(0)); }

  // Signals it, as a device would. For tests, and for passing one waiter's wake-up on to another.
  [[nodiscard]] Result<void> signal() const;

  // For poll(2) and epoll(7); readable when a signal is waiting. Still owned by the Event.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit Event(Fd fd) noexcept : fd_(std::move(fd)) {}
  Fd fd_;
};

}  // namespace postern
