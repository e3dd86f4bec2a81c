// SPDX-License-Identifier: Apache-2.0
// DirtyLog: the dirty page log of a backend's IOMMU, which DirtyTracker queries.
#pragma once

#include <cstdint>
#include <postern/dirty_tracker.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>

namespace postern {

struct Attached;

// A query for the pages of a range, which is mapped as a whole. The log sets the bits of dirty pages, one bit for each
// page of this size, and leaves the others unchanged.
struct DirtyRequest {
  IovaRange range;
  std::uint64_t page_size = 0;
  std::uint64_t* bits = nullptr;

  [[nodiscard]] std::uint64_t pages() const { return range.length() / page_size; }
  // A zeroed bitmap for them.
  [[nodiscard]] std::uint64_t words() const { return DirtyBitmap::words_for(range.length(), page_size); }
};

class DirtyLog {
 public:
  DirtyLog() = default;
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;
  virtual ~DirtyLog() = default;

  // Whether writes of this device can be logged; the note has the reason if not, or a remark.
  [[nodiscard]] virtual TrackedDevice probe(const Attached& device) const = 0;
  // Starts logging for these devices, too: for all or for none.
  [[nodiscard]] virtual Result<void> start(std::span<const Attached* const> devices) = 0;
  // Stops logging for all devices.
  [[nodiscard]] virtual Result<void> stop() = 0;

  // True if a request must cover whole mappings, and always clears what it reports.
  [[nodiscard]] virtual bool reports_whole_mappings() const noexcept = 0;
  [[nodiscard]] virtual Result<void> collect(const DirtyRequest& request, AfterQuery after) = 0;
  // Reports, before an unmap(), the dirty pages that unmap() itself cannot report.
  [[nodiscard]] virtual Result<void> prepare_unmap(const DirtyRequest& /*mapping*/) { return {}; }
  // Unmaps one mapping, and reports its dirty pages. Returns 0 or a negated errno.
  [[nodiscard]] virtual int unmap(const DirtyRequest& mapping) = 0;
};

}  // namespace postern
