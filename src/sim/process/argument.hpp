// SPDX-License-Identifier: Apache-2.0
// UserArgument: the argument of an ioctl, in memory that may not exist: copy_from_user and copy_to_user.
#pragma once

#include <cerrno>
#include <cstddef>
#include <vector>

#include "sim/process/process.hpp"

namespace postern::sim {

// Writable memory is used in place. Other memory is copied, and changes are copied back.
class UserArgument {
 public:
  // The part after the first `least` bytes, up to argsz, which is its first word. `wanted`: the call fails without that
  // part.
  enum class Tail { not_wanted, wanted };

  UserArgument(Process& process, void* address, std::size_t least, Tail tail);

  // Null if the memory does not exist.
  [[nodiscard]] void* data() const noexcept { return data_; }
  // Returns `result`, or -EFAULT if the changes cannot be copied back.
  [[nodiscard]] int finish(int result);

 private:
  Process& process_;
  std::byte* user_;
  std::byte* data_ = nullptr;
  std::vector<std::byte> copy_;    // empty: used in place
  std::vector<std::byte> before_;  // the original copy
};

// Calls run(argument) for an argument that starts with its size.
template <typename Argument, typename Run>
[[nodiscard]] int with_argument(Process& process, void* address, std::size_t least, Run run,
                                UserArgument::Tail tail = UserArgument::Tail::not_wanted) {
  static_assert(offsetof(Argument, argsz) == 0);
  UserArgument user(process, address, least, tail);
  return user.data() != nullptr ? user.finish(run(*static_cast<Argument*>(user.data()))) : -EFAULT;
}

}  // namespace postern::sim
