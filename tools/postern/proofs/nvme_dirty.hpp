// SPDX-License-Identifier: Apache-2.0
// compare_dirty_pages(): whether dirty tracking reports every page that an NVMe controller writes.
#pragma once

#include <postern-nvme/controller.hpp>
#include <postern/dirty_tracker.hpp>

#include "proofs/proof.hpp"

namespace postern::tool {

struct DirtyReport {
  std::uint64_t pages = 0;    // mapped for the device
  std::uint64_t written = 0;  // that the device wrote: their content has changed
  std::uint64_t marked = 0;   // reported dirty
  TrackedDevice tracked;      // the source of the report
};

// Reads single blocks into pages that are far apart, queries in between and again before tracking stops, and compares.
// Errors: EIO (a written page was not reported, or a read failed), those of the driver and of DirtyTracker.
[[nodiscard]] Result<DirtyReport> compare_dirty_pages(ProofContext& context, DirtyTracker& tracker,
                                                      nvme::Controller& controller, const nvme::Namespace& ns);

}  // namespace postern::tool
