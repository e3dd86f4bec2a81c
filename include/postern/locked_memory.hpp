// SPDX-License-Identifier: Apache-2.0
// LockedMemory: how much memory this process may pin for devices, and how much it has pinned.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>

namespace postern {

/// Locked-memory limit and use of this process, in bytes, from /proc/self. Mapping memory for a device pins it. The
/// kernel charges pinned memory against RLIMIT_MEMLOCK unless the process has CAP_IPC_LOCK: type1 charges the process
/// (VmLck); iommufd charges the user, summed over all processes, and reports this process's share as VmPin.
struct POSTERN_API LockedMemory {
  std::optional<std::uint64_t> limit;  ///< soft RLIMIT_MEMLOCK; missing: unlimited
  bool exempt = false;                 ///< CAP_IPC_LOCK: the limit does not apply
  std::uint64_t locked = 0;            ///< VmLck
  std::uint64_t pinned = 0;            ///< VmPin

  /// Whether this many more bytes may be pinned, as far as this process can determine.
  [[nodiscard]] bool allows(std::uint64_t bytes) const noexcept {
    return exempt || !limit || (bytes <= *limit && locked + pinned <= *limit - bytes);
  }

  /// Reads the current values. Thread-safe. Errors: those of reading /proc/self.
  [[nodiscard]] static Result<LockedMemory> read(Kernel& kernel);
};

/// Returns the page size, in bytes, of this process's memory at `address`: the host's page size, or a huge page of
/// hugetlbfs. Ignores transparent huge pages. Reads /proc/self/smaps. Thread-safe. Errors: EFAULT (no such memory),
/// those of reading /proc/self.
[[nodiscard]] POSTERN_API Result<std::uint64_t> backing_page_size(Kernel& kernel, const void* address);

}  // namespace postern
