// SPDX-License-Identifier: Apache-2.0
// Leftovers: what a process holds of the kernel, to be compared before and after.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern::tool {

struct Leftovers {
  std::map<std::string, std::string> open_fds;  // number, and what it is of, as far as /proc/self/fd tells
  std::uint64_t locked = 0;                     // VmLck, bytes
  std::uint64_t pinned = 0;                     // VmPin, bytes
  std::size_t logged_errors = 0;                // errors of tear-down, which destructors could tell nobody

  // Errors: those of reading /proc/self.
  [[nodiscard]] static Result<Leftovers> now(Kernel& kernel);
};

// Compares, and says both. `failed`: something had gone wrong in between, after which the kernel may be to blame.
// Errors: EBUSY (something is left; which is said).
[[nodiscard]] Result<std::string> compare(const Leftovers& before, const Leftovers& after, bool failed = false);

}  // namespace postern::tool
