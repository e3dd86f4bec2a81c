// SPDX-License-Identifier: Apache-2.0
// The process's eventfds, as the kernel holds them: fds of its own for the same eventfds; -1 is none.
#pragma once

#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>

namespace postern::sim {

// eventfd_ctx_fdget: an fd of our own for the same eventfd, or a negated errno.
inline int take_eventfd(int fd) {
  const int own = ::dup(fd);
  if (own < 0) return -errno;
  std::error_code error;
  const auto target = std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(own), error);
  if (!error && target == "anon_inode:[eventfd]") return own;
  ::close(own);
  return -EINVAL;
}

inline void drop(int& eventfd) {
  if (eventfd >= 0) ::close(eventfd);
  eventfd = -1;
}

// eventfd_signal: if the counter is full, somebody has a signal to see anyway. Never waits, though the process may have
// made the eventfd one that blocks.
inline void signal(int eventfd) {
  constexpr std::uint64_t one = 1;
  pollfd look{.fd = eventfd, .events = POLLOUT, .revents = 0};
  if (eventfd >= 0 && ::poll(&look, 1, 0) == 1) (void)!::write(eventfd, &one, sizeof one);
}

inline bool is_signalled(int eventfd) {
  pollfd look{.fd = eventfd, .events = POLLIN, .revents = 0};
  return eventfd >= 0 && ::poll(&look, 1, 0) == 1;
}

// virqfd_wakeup: whether it was signalled. The eventfd is read, which the process may have made one that blocks.
inline bool take_signals(int eventfd) {
  std::uint64_t signals = 0;
  return is_signalled(eventfd) && ::read(eventfd, &signals, sizeof signals) == sizeof signals;
}

}  // namespace postern::sim
