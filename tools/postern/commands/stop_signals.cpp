// SPDX-License-Identifier: Apache-2.0
// StopSignals: a handler that writes to an eventfd.
#include "commands/stop_signals.hpp"

#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>

namespace postern::tool {
namespace {

std::atomic<int> stop_fd = -1;
static_assert(std::atomic<int>::is_always_lock_free);

void stop(int /*signal*/) {
  const int before = errno;
  const std::uint64_t one = 1;
  (void)!::write(stop_fd, &one, sizeof one);  // a full counter is signalled, too
  errno = before;
}

}  // namespace

StopSignals::StopSignals(const Event& event) {
  stop_fd = event.fd();
  struct sigaction handler {};
  handler.sa_handler = stop;
  handler.sa_flags = SA_RESTART;
  ::sigemptyset(&handler.sa_mask);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction before {};
    if (::sigaction(signal, nullptr, &before) != 0 || before.sa_handler == SIG_IGN) continue;  // as nohup(1) sets it
    if (::sigaction(signal, &handler, nullptr) == 0) before_.emplace_back(signal, before);
  }
}

StopSignals::~StopSignals() {
  for (const auto& [signal, before] : before_) (void)::sigaction(signal, &before, nullptr);
}

}  // namespace postern::tool
