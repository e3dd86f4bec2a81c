// SPDX-License-Identifier: Apache-2.0
// HeldSignals: what would end the process waits until a change is over.
#pragma once

#include <csignal>

namespace postern::tool {

// While it lives, signals that ask the process to end are held back, in this thread and those that it starts: a device
// between two drivers is of use to nobody. They arrive when it goes. Waiting for a device to be closed is none the
// longer for it: the kernel does not let that wait be broken off.
class HeldSignals {
 public:
  HeldSignals() {
    sigset_t signals;
    sigemptyset(&signals);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) sigaddset(&signals, signal);
    pthread_sigmask(SIG_BLOCK, &signals, &before_);
  }
  ~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace postern::tool
