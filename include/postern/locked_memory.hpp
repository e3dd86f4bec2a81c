// SPDX-License-Identifier: Apache-2.0
// LockedMemory: how much memory this process may pin for devices, and how much it has.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>

namespace postern {

// All in bytes, from /proc/self. Mapping memory for a device pins it; the kernel counts it against RLIMIT_MEMLOCK
// unless the process has CAP_IPC_LOCK. type1 counts a process's own (VmLck); iommufd counts all processes of a user
// together and shows its own share as VmPin. Any thread may read it.
struct POSTERN_API LockedMemory {
  std::optional<std::uint64_t> limit;  // RLIMIT_MEMLOCK, soft; missing: unlimited
  bool exempt = false;                 // CAP_IPC_LOCK: the limit does not count
  std::uint64_t locked = 0;            // VmLck
  std::uint64_t pinned = 0;            // VmPin

  // Whether this much more may be pinned, as far as this process can tell.
  [[nodiscard]] bool allows(std::uint64_t bytes) const noexcept {
    return exempt || !limit || (bytes <= *limit && locked + pinned <= *limit - bytes);
  }

  // Errors: those of reading /proc/self.
  [[nodiscard]] static Result<LockedMemory> read(Kernel& kernel);
};

// How large the pages are that this process's memory at `address` is made of: the host's page, or a huge page of
// hugetlbfs (transparent huge pages do not count). Bytes, from /proc/self/smaps. Errors: EFAULT (no such memory), those
// of reading /proc/self. Any thread.
[[nodiscard]] POSTERN_API Result<std::uint64_t> backing_page_size(Kernel& kernel, const void* address);

}  // namespace postern
