// SPDX-License-Identifier: Apache-2.0
// UserArgument: what one of VFIO's ioctls is called with, which need not be there: copy_from_user and copy_to_user.
#pragma once

#include <cerrno>
#include <cstddef>
#include <vector>

#include "sim/process/process.hpp"

namespace postern::sim {

// Memory that can be written to is used in place. Of any other there is a copy, and what the call changes goes back.
class UserArgument {
 public:
  // What stands behind the `least` that a call reads, as far as argsz says, its first word: `wanted` where the call
  // cannot do without.
  enum class Tail { not_wanted, wanted };

  UserArgument(Process& process, void* address, std::size_t least, Tail tail);

  // Null where the memory is not there.
  [[nodiscard]] void* data() const noexcept { return data_; }
  // What the call gives: `result`, or -EFAULT where there is no room for what it answers.
  [[nodiscard]] int finish(int result);

 private:
  Process& process_;
  std::byte* user_;
  std::byte* data_ = nullptr;
  std::vector<std::byte> copy_;    // empty: it is used in place
  std::vector<std::byte> before_;  // the copy as it was made
};

// Calls run(the argument), one that begins with its size.
template <typename Argument, typename Run>
[[nodiscard]] int with_argument(Process& process, void* address, std::size_t least, Run run,
                                UserArgument::Tail tail = UserArgument::Tail::not_wanted) {
  static_assert(offsetof(Argument, argsz) == 0);
  UserArgument user(process, address, least, tail);
  return user.data() != nullptr ? user.finish(run(*static_cast<Argument*>(user.data()))) : -EFAULT;
}

}  // namespace postern::sim
