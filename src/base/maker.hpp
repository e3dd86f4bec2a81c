// SPDX-License-Identifier: Apache-2.0
// Maker: which process made an object.
#pragma once

#include <unistd.h>

namespace postern {

// A child of fork(2) has a copy of each object, and what it holds of the kernel is the parent's, too. Letting the copy
// go must undo nothing of that: it closes the child's fds and unmaps the child's memory, and that is all.
class Maker {
 public:
  [[nodiscard]] bool is_this_process() const noexcept { return ::getpid() == process_; }

 private:
  pid_t process_ = ::getpid();
};

}  // namespace postern
