// SPDX-License-Identifier: Apache-2.0
// DeferredSignals: defers signals during work that must not be interrupted.
#pragma once

#include <csignal>
#include <utility>
#include <vector>

namespace postern::tool {

// While it exists, no signal ends or stops the process except SIGKILL, SIGSTOP and faults. It uses handlers, since a
// signal that one thread blocks is delivered to another. Each deferred signal is delivered once afterwards. One object
// at a time in a process.
class DeferredSignals {
 public:
  DeferredSignals();
  ~DeferredSignals();
  DeferredSignals(const DeferredSignals&) = delete;
  DeferredSignals& operator=(const DeferredSignals&) = delete;

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

}  // namespace postern::tool
