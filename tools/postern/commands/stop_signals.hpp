// SPDX-License-Identifier: Apache-2.0
// StopSignals: lets SIGINT, SIGTERM and SIGHUP end a command that runs until it is stopped.
#pragma once

#include <csignal>
#include <postern/event.hpp>
#include <utility>
#include <vector>

namespace postern::tool {

// While it exists, these signals signal the event instead of ending the process. One object at a time in a process; the
// event must outlive it.
class StopSignals {
 public:
  explicit StopSignals(const Event& event);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

}  // namespace postern::tool
