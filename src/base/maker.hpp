// SPDX-License-Identifier: Apache-2.0
// Maker: the process that created an object.
#pragma once

#include <unistd.h>

namespace postern {

// A child of fork(2) has a copy of each object, and shares its kernel objects with the parent. Destroying the copy
// closes the child's fds and unmaps the child's memory, but must not change the parent's kernel objects.
class Maker {
 public:
  [[nodiscard]] bool is_this_process() const noexcept { return ::getpid() == process_; }

 private:
  pid_t process_ = ::getpid();
};

}  // namespace postern
