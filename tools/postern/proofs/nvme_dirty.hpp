// SPDX-License-Identifier: Apache-2.0
// Whether every page that an NVMe controller writes is told by dirty tracking.
#pragma once

#include <postern-nvme/controller.hpp>
#include <postern/dirty_tracker.hpp>

#include "proofs/proof.hpp"

namespace postern::tool {

struct DirtyReport {
  std::uint64_t pages = 0;    // of memory that the device could write
  std::uint64_t written = 0;  // that it did write: what they hold has changed
  std::uint64_t marked = 0;   // that were told
  TrackedDevice tracked;      // by whom
};

// Reads single blocks into pages that are far apart, asks in between and once more before tracking stops, and compares.
// Errors: EIO (a page was written that nobody told of, or a read failed), those of the driver and of DirtyTracker.
[[nodiscard]] Result<DirtyReport> compare_dirty_pages(Bench& bench, DirtyTracker& tracker, nvme::Controller& controller,
                                                      const nvme::Namespace& ns);

}  // namespace postern::tool
