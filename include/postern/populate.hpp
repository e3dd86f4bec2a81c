// SPDX-License-Identifier: Apache-2.0
// populate(): faults memory in, by several threads, before a container pins it.
#pragma once

#include <cstdint>
#include <functional>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <postern/memory.hpp>
#include <postern/result.hpp>
#include <stop_token>

namespace postern {

/// How populate() works.
struct PopulateOptions {
  unsigned threads = 0;       ///< including the calling one; 0: one for each processor, at most 16
  bool huge_pages = true;     ///< ask for transparent huge pages first (MADV_HUGEPAGE), where the memory can have them
  std::stop_token stop = {};  ///< ends it early, within the time that a thread needs for 16 MiB
  /// If set, called with the bytes that are populated so far: from any of the threads, one at a time. Must not throw.
  std::function<void(std::uint64_t bytes)> progress = {};
};

/// Gives memory its pages, which a container otherwise faults in one after another while it pins them. Several threads
/// are faster, and huge pages are faster than that: a container maps a huge page as one. Memory that has its pages
/// stays as it is. On an error, or when it is stopped, pages of this process's memory that were added stay; holes of a
/// file are holes again (except huge pages): do not write to them meanwhile.
/// Kernel: MADV_POPULATE_WRITE, or _READ if the file is open for reading only (Linux 5.14). Thread-safe.
/// Errors: ECANCELED (stopped), EFAULT (a page cannot be had: beyond the end of the file, or too few huge pages),
/// EINVAL (the address is unaligned, the memory cannot be written or is a BAR, or the kernel is too old), ENOMEM (no
/// such memory), EBADF (no file), EOPNOTSUPP (a dma-buf), those of mmap(2).
[[nodiscard]] POSTERN_API Result<void> populate(Kernel& kernel, const Memory& memory,
                                                const PopulateOptions& options = {});

}  // namespace postern
