// SPDX-License-Identifier: Apache-2.0
// DirtyTracker: which pages of what is mapped the devices wrote, as a migration wants to know it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <postern/container.hpp>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

class DirtyLog;
struct DirtyRequest;
namespace memory {
class PageSet;
}

// Who tells which pages a device wrote.
enum class DirtySource : std::uint8_t {
  device,  // itself: VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _REPORT, _STOP (Linux 6.1)
  iommu,   // the IOMMU before it: VFIO_IOMMU_DIRTY_PAGES (5.8), IOMMU_HWPT_GET_DIRTY_BITMAP (6.7)
  nobody,  // so that every page counts as written
};

[[nodiscard]] POSTERN_API std::string_view to_string(DirtySource source);  // "device", "iommu", "nobody"

// Where a query puts its answer: a bit for each page of the range, bit 0 of the first word for its first page. Bits of
// pages that were written are set; the others stay as they are, so that several answers can be gathered in one bitmap.
struct DirtyBitmap {
  std::uint64_t page_size = 4096;    // a power of two, no less than the container's smallest page
  std::span<std::uint64_t> words{};  // as many as words_for() tells, or more

  [[nodiscard]] static constexpr std::uint64_t words_for(std::uint64_t length, std::uint64_t page_size) {
    return (length / page_size + 63) / 64;
  }
};

// What becomes of what a query told.
enum class AfterQuery : std::uint8_t { forget, keep };

enum class DirtyAnswer : std::uint8_t {
  pages,       // the pages that are marked were written
  everything,  // there is a device that nobody tracks, or memory ran out for what was written: all pages are marked
};

struct TrackedDevice {
  std::string device;
  DirtySource source = DirtySource::nobody;
  std::string note;  // why nobody, or what is to be known of its source; may be empty
};

// What a container of type1 (version 2) or iommufd can do beside mapping (Container::dirty_tracker()). A page may be
// told that was not written, but none that was is ever left out: what a device wrote before it left the container, or
// what a failing call may have lost, is told by the next query. An IOMMU that maps by large pages tells them as a whole
// (HugePages::avoid helps). Lives as long as the container; thread rules: those of the container.
class POSTERN_API DirtyTracker {
 public:
  DirtyTracker(Container& container, DirtyLog& log);  // for backends
  ~DirtyTracker();
  DirtyTracker(const DirtyTracker&) = delete;
  DirtyTracker& operator=(const DirtyTracker&) = delete;

  // Nothing counts as written yet. Each device is tracked by the best there is (itself, else the IOMMU, else nobody),
  // or by `only`; so are those that join later. If one cannot be, none is. What is mapped afterwards is tracked, too;
  // but a device that logs by itself knows only what was mapped when it began: all the rest counts as written. Errors:
  // ENODEV (no device is attached), EBUSY (it is on), EOPNOTSUPP (`only` cannot be had: every device is named with the
  // reason), those of the ioctls.
  [[nodiscard]] Result<void> start(std::optional<DirtySource> only = std::nullopt);
  // What was not asked for is forgotten. Errors: EINVAL (it is not on), those of the ioctls; it is off even so.
  [[nodiscard]] Result<void> stop();
  [[nodiscard]] bool is_on() const noexcept { return on_; }

  // Which pages of this range were written since the start, or since the last query that forgot. All of the range is
  // mapped; it may be part of a mapping, or cover several. Ends and length are multiples of the bitmap's page size.
  // Errors: EINVAL (not on; unaligned; a page size that is none, or smaller than the IOMMU's; a bitmap that is too
  // short), EOVERFLOW (it runs past 2^64), ENOENT (part of it is not mapped: the first such address is named), those of
  // the ioctls: then the bitmap may have some of the bits, and the next query tells all pages of the range.
  [[nodiscard]] Result<DirtyAnswer> query(IovaRange range, const DirtyBitmap& bitmap,
                                          AfterQuery after = AfterQuery::forget);

  // Container::unmap(), which tells in the same step what was written there; holes are allowed as in that. No device
  // may write there any more: with iommufd, and where the device itself logs, what it writes meanwhile can be lost.
  // Kernel: VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP; IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR and IOMMU_IOAS_UNMAP.
  // Errors: those of query() and of Container::unmap(). What is still mapped after one keeps its pages.
  [[nodiscard]] Result<DirtyAnswer> unmap(Iova iova, std::uint64_t length, const DirtyBitmap& bitmap);

  // Who tracks each device, or would now.
  [[nodiscard]] std::vector<TrackedDevice> devices() const;

 private:
  friend class Container;  // tells when devices come and go
  struct Member;

  [[nodiscard]] Result<void> join(const std::string& device, int fd, std::uint64_t smallest_page);
  void leave(const std::string& device) noexcept;

  [[nodiscard]] TrackedDevice choose(const Member& member) const;
  [[nodiscard]] Result<void> start_members(std::span<Member> members);
  [[nodiscard]] bool misses_one() const;
  [[nodiscard]] Result<void> check(IovaRange range, const DirtyBitmap& bitmap) const;
  [[nodiscard]] Result<void> collect(const DirtyRequest& request, AfterQuery after);
  [[nodiscard]] Result<void> collect_devices(const DirtyRequest& request);
  [[nodiscard]] Result<void> unmap_one(IovaRange mapping, Iova first, const DirtyBitmap& bitmap);
  void remember_all();
  [[nodiscard]] std::uint64_t* cleared_words(IovaRange range);

  Container* container_;
  DirtyLog* log_;  // the IOMMU's
  std::vector<Member> members_;
  std::unique_ptr<memory::PageSet> pending_;  // written, taken from who knew it, and not told yet
  std::vector<std::uint64_t> scratch_;
  std::optional<DirtySource> only_;
  std::uint64_t page_size_ = 0;  // while on: the container's smallest page
  bool on_ = false;
  bool lost_ = false;  // memory ran out for what was written: every page counts as that, until tracking stops
};

}  // namespace postern
