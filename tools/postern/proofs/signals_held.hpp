// SPDX-License-Identifier: Apache-2.0
// SignalsHeld: for work that must not be ended half way.
#pragma once

#include <csignal>
#include <utility>
#include <vector>

namespace postern::tool {

// While it lives no signal ends or stops the process, but those that nothing holds (SIGKILL, SIGSTOP) and those of a
// fault. Handlers do that, since a signal that one thread blocks goes to another. What came meanwhile comes once when
// it goes. One at a time in a process.
class SignalsHeld {
 public:
  SignalsHeld();
  ~SignalsHeld();
  SignalsHeld(const SignalsHeld&) = delete;
  SignalsHeld& operator=(const SignalsHeld&) = delete;

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

}  // namespace postern::tool
