// SPDX-License-Identifier: Apache-2.0
// Event: waits for signals and sends them. The eventfd is real under every Kernel, so poll(2) and read(2) are called
// directly.
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <postern/deadline.hpp>
#include <postern/event.hpp>
#include <string>

#include "kernel/ioctl.hpp"

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
                    .remedy = fd == -EMFILE ? Remedies(RemedyCode::raise_open_files_limit) : Remedies(),
                    .causes = {}});
  }
  return Event(Fd(kernel, fd));
}

Result<Event> Event::adopt(Fd fd) {
  const std::string object = "event of fd " + std::to_string(fd.get());
  const int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0) return call_failure("fcntl", {.result = -errno, .object = object});
  std::string file;
  const int read = system_kernel().read_link("/proc/self/fd/" + std::to_string(fd.get()), file);
  if (read == 0 && file != "anon_inode:[eventfd]") {
    return refusal({.result = -EINVAL, .object = object, .reason = "it is not an eventfd, but " + file});
  }
  if ((flags & O_NONBLOCK) == 0) {
    return refusal({.result = -EINVAL,
                    .object = object,
                    .reason = "it blocks, so a wait would not end in time",
                    .remedy = RemedyCode::make_event_nonblocking});
  }
  return Event(std::move(fd));
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
