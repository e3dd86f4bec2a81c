// SPDX-License-Identifier: Apache-2.0
// BlockedSignals: blocks the signals that end the process until a change is complete.
#pragma once

#include <csignal>

namespace postern::tool {

// While it exists, signals that ask the process to end are blocked in this thread and those that it starts, so that no
// device is left between two drivers. They are delivered afterwards. This does not prolong the wait for a device to be
// closed: the kernel does not let signals interrupt that wait.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace postern::tool
