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

  /// Takes over an eventfd made elsewhere: by another library, or received from another process, whose signals it
  /// shares. With EFD_SEMAPHORE a wait takes one signal at a time. On an error `fd` is closed. Errors: EBADF (not an
  /// open descriptor), EINVAL (not an eventfd, as far as /proc/self/fd tells; or made without EFD_NONBLOCK, so that
  /// wait() would have no timeout).
  [[nodiscard]] static Result<Event> adopt(Fd fd);

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

/// Refers to an eventfd that somebody else owns: an Event, or a descriptor of the caller. Also made implicitly from an
/// Event or a pointer to one, so that a std::vector<EventRef>(events.begin(), events.end()) refers to each of several
/// Events. Valid as long as that descriptor is open. Thread safety: as int.
class EventRef {
 public:
  constexpr EventRef() noexcept = default;  ///< none
  // NOLINTBEGIN(google-explicit-constructor): every Event can be referred to
  /// Refers to an Event; not valid if it was moved from.
  EventRef(const Event& event) noexcept : fd_(event.fd() >= 0 ? event.fd() : invalid) {}
  /// Refers to an Event, or to none if null.
  EventRef(const Event* event) noexcept : fd_(event == nullptr ? -1 : EventRef(*event).fd_) {}
  // NOLINTEND(google-explicit-constructor)
  EventRef(const Event&&) = delete;  ///< a temporary Event would be closed before it could be used
  /// Refers to an eventfd(2) of the caller; a negative number is refused when the EventRef is used.
  [[nodiscard]] static constexpr EventRef of_fd(int fd) noexcept { return EventRef(fd >= 0 ? fd : invalid, 0); }

  [[nodiscard]] constexpr bool is_none() const noexcept { return fd_ == -1; }  ///< made without an event, or from null
  /// Whether there can be an eventfd: false for none, a moved-from Event and a negative number.
  [[nodiscard]] constexpr bool is_valid() const noexcept { return fd_ >= 0; }
  [[nodiscard]] constexpr int fd() const noexcept { return fd_; }  ///< the eventfd; negative unless is_valid()

 private:
  static constexpr int invalid = -2;
  constexpr EventRef(int fd, int /*unused*/) noexcept : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace postern
