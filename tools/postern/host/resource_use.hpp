// SPDX-License-Identifier: Apache-2.0
// ResourceUse: open files, locked memory and logged errors of this process, to be compared before and after.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

struct ResourceUse {
  std::map<std::string, std::string> open_fds;  // by number, with the target of its link in /proc/self/fd
  std::uint64_t locked = 0;                     // VmLck, bytes
  std::uint64_t pinned = 0;                     // VmPin, bytes
  std::size_t logged_errors = 0;                // errors that destructors could only log

  // Errors: those of reading /proc/self.
  [[nodiscard]] static Result<ResourceUse> now(Kernel& kernel);
};

// Compares and describes both. `failed`: a step in between failed, so the kernel may be the cause. Errors: EBUSY
// (something is left behind; the reason lists it).
[[nodiscard]] Result<std::string> compare(const ResourceUse& before, const ResourceUse& after, bool failed = false);

}  // namespace postern::tool
