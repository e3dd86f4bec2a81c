// SPDX-License-Identifier: Apache-2.0
// LockedMemory: how much memory this process may pin for devices, and how much it has pinned. locked_memory_need.hpp
// tells how much a layout needs.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <postern/remedy.hpp>
#include <postern/result.hpp>

namespace postern {

/// A counter of locked memory to which the kernel adds what is mapped for a device. RLIMIT_MEMLOCK of the process that
/// maps limits each of them.
enum class LockedMemoryCounter : std::uint8_t {
  process,  ///< memory that this process has locked, shared with mlock(2): VmLck
  user,     ///< memory that iommufd has pinned for all processes of this user; mlock(2) is not counted
};

/// Locked-memory limit and use of this process, in bytes, from /proc/self. Mapping memory for a device pins it, and the
/// kernel counts pinned memory against RLIMIT_MEMLOCK unless the process has CAP_IPC_LOCK.
struct POSTERN_API LockedMemory {
  std::optional<std::uint64_t> limit;  ///< soft RLIMIT_MEMLOCK; missing: unlimited
  bool exempt = false;                 ///< CAP_IPC_LOCK: the limit does not apply
  std::uint64_t locked = 0;            ///< VmLck
  std::uint64_t pinned = 0;            ///< VmPin: what this process has pinned by iommufd

  /// Returns what is in use of a counter, in bytes. Of LockedMemoryCounter::user only the part of this process is
  /// known: the kernel does not show the sum.
  [[nodiscard]] std::uint64_t used(LockedMemoryCounter counter) const noexcept {
    return counter == LockedMemoryCounter::process ? locked : pinned;
  }

  /// Whether the counter may grow by this many bytes, if other processes of this user have pinned nothing.
  [[nodiscard]] bool allows(std::uint64_t bytes, LockedMemoryCounter counter) const noexcept {
    return exempt || !limit || (bytes <= *limit && used(counter) <= *limit - bytes);
  }

  /// Returns the remedy that lets the counter grow by this many bytes: raise_locked_memory_limit_to.
  [[nodiscard]] Remedies raise_limit(std::uint64_t bytes, LockedMemoryCounter counter) const;

  /// Reads the current values. Thread-safe. Errors: those of reading /proc/self.
  [[nodiscard]] static Result<LockedMemory> read(Kernel& kernel);
};

/// Returns the page size, in bytes, of this process's memory at `address`: the host's page size, or a huge page of
/// hugetlbfs. Ignores transparent huge pages. Reads /proc/self/smaps. Thread-safe. Errors: EFAULT (no such memory),
/// those of reading /proc/self.
[[nodiscard]] POSTERN_API Result<std::uint64_t> backing_page_size(Kernel& kernel, const void* address);

}  // namespace postern
