// SPDX-License-Identifier: Apache-2.0
// Event: waiting for and giving signals. An eventfd is real under every Kernel, so poll(2) and read(2) are called
// directly.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <postern/event.hpp>

#include "base/deadline.hpp"

namespace postern {
namespace {

auto event_failure(const char* operation, int code) {
  return failure({.code = code, .operation = operation, .object = "event", .reason = {}, .remedy = {}, .causes = {}});
}

}  // namespace

Result<Event> Event::create(Kernel& kernel) {
  const int fd = kernel.eventfd();
  if (fd < 0) {
    return failure({.code = -fd,
                    .operation = "eventfd",
                    .object = "event",
                    .reason = {},
                    .remedy = fd == -EMFILE ? "raise the limit of open files (\"ulimit -n\")" : "",
                    .causes = {}});
  }
  return Event(Fd(kernel, fd));
}

Result<std::uint64_t> Event::wait(std::chrono::milliseconds timeout) const {
  const Deadline end(timeout);
  for (;;) {
    std::uint64_t count = 0;
    const ssize_t got = ::read(fd_.get(), &count, sizeof count);
    if (got == sizeof count) return count;
    if (got < 0 && errno != EAGAIN && errno != EINTR) return event_failure("read", errno);

    const std::chrono::milliseconds::rep left = end.left().count();
    if (left == 0) return 0;
    pollfd waiting{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    constexpr std::chrono::milliseconds::rep longest = 1 << 30;  // poll(2) takes an int
    if (::poll(&waiting, 1, static_cast<int>(std::min<std::chrono::milliseconds::rep>(left, longest))) < 0 &&
        errno != EINTR) {
      return event_failure("poll", errno);
    }
  }
}

Result<void> Event::signal() const {
  const std::uint64_t one = 1;
  if (::write(fd_.get(), &one, sizeof one) < 0) return event_failure("write", errno);
  return {};
}

}  // namespace postern
