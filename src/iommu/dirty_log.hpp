// SPDX-License-Identifier: Apache-2.0
// DirtyLog: what a backend's IOMMU knows of the pages that devices wrote. DirtyTracker asks it.
#pragma once

#include <cstdint>
#include <postern/dirty_tracker.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>

namespace postern {

// A question for the pages of a range, all of them mapped. Who answers sets the bits of those that were written, a bit
// for each page of this size, and leaves the others as they are.
struct DirtyRequest {
  IovaRange range;
  std::uint64_t page_size = 0;
  std::uint64_t* bits = nullptr;

  [[nodiscard]] std::uint64_t pages() const { return range.length() / page_size; }
  // A bitmap with nothing set that holds them, in words.
  [[nodiscard]] std::uint64_t words() const { return DirtyBitmap::words_for(range.length(), page_size); }
};

class DirtyLog {
 public:
  DirtyLog() = default;
  DirtyLog(const DirtyLog&) = delete;
  DirtyLog& operator=(const DirtyLog&) = delete;
  virtual ~DirtyLog() = default;

  // Whether writes of this device can be logged, and if not, why; what else is to be known stands in the note.
  [[nodiscard]] virtual TrackedDevice probe(const std::string& device) const = 0;
  // Logs for these devices too, from now on. As a whole or not at all.
  [[nodiscard]] virtual Result<void> start(std::span<const std::string> devices) = 0;
  // For none any more.
  [[nodiscard]] virtual Result<void> stop() = 0;

  // True where a request is for whole mappings, and forgets what it told whatever it is asked.
  [[nodiscard]] virtual bool tells_whole_mappings() const noexcept = 0;
  [[nodiscard]] virtual Result<void> collect(const DirtyRequest& request, AfterQuery after) = 0;
  // Tells before an unmap() what that cannot tell.
  [[nodiscard]] virtual Result<void> prepare_unmap(const DirtyRequest& /*mapping*/) { return {}; }
  // Unmaps one mapping, and tells what was written in it. Gives 0 or a negated errno.
  [[nodiscard]] virtual int unmap(const DirtyRequest& mapping) = 0;
};

}  // namespace postern
