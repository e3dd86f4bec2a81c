// SPDX-License-Identifier: Apache-2.0
// in_child(): runs a function in a child of fork(2), which ends with it.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace postern::test {

// Returns the result of `child`; -1 if it does not finish within 10 s.
template <typename Child>
int in_child(Child child) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(10);
    ::_exit(child());
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace postern::test
