// SPDX-License-Identifier: Apache-2.0
// DirtyTracker: which mapped pages the devices have written, for migration.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// Who tracks the pages a device writes.
enum class DirtySource : std::uint8_t {
  device,  ///< the device: VFIO_DEVICE_FEATURE_DMA_LOGGING_START, _REPORT, _STOP (Linux 6.1)
  iommu,   ///< its IOMMU: VFIO_IOMMU_DIRTY_PAGES (5.8), IOMMU_HWPT_GET_DIRTY_BITMAP (6.7)
  none,    ///< the device is untracked: every page is reported dirty
};

/// Returns "device", "iommu" or "none".
[[nodiscard]] POSTERN_API std::string_view to_string(DirtySource source);

/// The caller's bitmap for a query: one bit per page of the range, bit 0 of the first word for its first page. A query
/// sets the bits of dirty pages and leaves the others unchanged, so several queries can accumulate in one bitmap.
struct DirtyBitmap {
  std::uint64_t page_size = 4096;    ///< bytes; a power of two, at least the container's smallest page
  std::span<std::uint64_t> words{};  ///< at least words_for() words

  /// Returns the number of words for a range of `length` bytes; part of a page takes a bit, too.
  [[nodiscard]] static constexpr std::uint64_t words_for(std::uint64_t length, std::uint64_t page_size) {
    const std::uint64_t pages = length / page_size + (length % page_size != 0 ? 1 : 0);
    return pages / 64 + (pages % 64 != 0 ? 1 : 0);
  }
  /// Calls visit(first, count) for each run of marked pages among the first `pages`, in ascending order; both are
  /// numbers of pages, and `words` must hold as many. Looks at 64 pages at a time where none or all are marked.
  template <typename Visit>
  void for_each_run(std::uint64_t pages, Visit visit) const {
    bool is_run = false;
    std::uint64_t first = 0;
    for (std::uint64_t base = 0; base < pages; base += 64) {
      std::uint64_t word = words[base / 64];
      if (pages - base < 64) word &= (std::uint64_t{1} << (pages - base)) - 1;
      if (word == (is_run ? ~std::uint64_t{0} : 0)) continue;
      for (unsigned bit = 0; bit < 64; ++bit) {
        const std::uint64_t rest = (is_run ? ~word : word) >> bit;
        if (rest == 0) break;
        bit += static_cast<unsigned>(std::countr_zero(rest));
        if (is_run) visit(first, base + bit - first);
        first = base + bit;
        is_run = !is_run;
      }
    }
    if (is_run) visit(first, pages - first);
  }
};

/// Whether a query clears what it reports (clear) or not (keep).
enum class AfterQuery : std::uint8_t { clear, keep };

/// What the bitmap of a query means.
enum class DirtyAnswer : std::uint8_t {
  pages,  ///< the marked pages are dirty
  /// All pages are marked, written or not: a device is untracked, its source marks_everything, or memory for the dirty
  /// state ran out.
  everything,
};

/// A device and who tracks it.
struct TrackedDevice {
  std::string device;                      ///< its name
  DirtySource source = DirtySource::none;  ///< who tracks it
  std::string note;                        ///< why it is untracked, or a remark about its source; may be empty
  /// The source reports every mapped page as dirty, each time: type1, for a device behind an IOMMU.
  bool marks_everything = false;
};

/// Dirty tracking of a container of type1 (version 2) or iommufd: container.get<DirtyTracker>(). May report clean pages
/// as dirty; never misses a dirty page: writes of a device that has detached, and what a failed call may have lost, are
/// reported by the next query. An IOMMU that maps with large pages reports each as a whole (HugePages::avoid helps).
/// Lives as long as the container. Thread safety: as the container.
class POSTERN_API DirtyTracker final {
 public:
  static constexpr std::string_view capability = "dirty tracking";  ///< for Container::get()

  ~DirtyTracker();
  DirtyTracker(const DirtyTracker&) = delete;
  DirtyTracker& operator=(const DirtyTracker&) = delete;

  /// Starts tracking, with all pages clean. Each device is tracked by the best source available (the device, else the
  /// IOMMU, else none), or by `only`. Devices that join later are tracked too; attaching one fails if `only` is not
  /// available for it, or if it changes the container's smallest page. Either tracking starts for all devices or
  /// start() fails. Memory mapped later is tracked too; but a device that logs its own writes knows only the mappings
  /// present at its start, and all others are reported dirty. Kernel: VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
  /// VFIO_IOMMU_DIRTY_PAGES, IOMMU_HWPT_SET_DIRTY_TRACKING. Errors: ENODEV (no device is attached), EBUSY (already
  /// started), EOPNOTSUPP (`only` is not available: each such device is named with the reason), those of the ioctls.
  [[nodiscard]] Result<void> start(std::optional<DirtySource> only = std::nullopt);
  /// Stops tracking, even if it returns an error. Discards dirty state that was never queried. Errors: EINVAL (not
  /// started), those of the ioctls.
  [[nodiscard]] Result<void> stop();
  [[nodiscard]] bool is_on() const noexcept;  ///< whether it was started

  /// Reports which pages of a range are dirty: written since start(), or since the last query with AfterQuery::clear.
  /// The whole range must be mapped; it may cover part of a mapping, or several. It ends with its last address (see
  /// IovaRange::from_length()). Its start and length are multiples of the bitmap's page size. Kernel:
  /// VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, VFIO_IOMMU_DIRTY_PAGES, IOMMU_HWPT_GET_DIRTY_BITMAP. Errors: EINVAL (not
  /// started; its last address is below its first; unaligned; the page size is not a power of two, or smaller than the
  /// IOMMU's; bitmap too short), ENOENT (part of it is not mapped: the first such address is named), those of the
  /// ioctls: the bitmap may then have some of the bits, and the next query reports all pages of the range.
  [[nodiscard]] Result<DirtyAnswer> query(IovaRange range, const DirtyBitmap& bitmap,
                                          AfterQuery after = AfterQuery::clear);

  /// Unmaps and returns the range's dirty pages in one step. As with Container::unmap(), the range may contain holes.
  /// Devices must have stopped writing to it: with iommufd, and with devices that log their own writes, concurrent
  /// writes can be lost. Mappings left after an error keep their dirty state. Kernel:
  /// VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP; IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR and IOMMU_IOAS_UNMAP. Errors: EOVERFLOW
  /// (runs past 2^64), those of query() and Container::unmap().
  [[nodiscard]] Result<DirtyAnswer> unmap(Iova iova, std::uint64_t length, const DirtyBitmap& bitmap);

  /// Returns who tracks each device, or, while off, who would.
  [[nodiscard]] std::vector<TrackedDevice> devices() const;

  class POSTERN_LOCAL Impl;                                     // for the library itself
  explicit DirtyTracker(std::unique_ptr<Impl> impl) noexcept;   ///< for the library itself
  [[nodiscard]] Impl& impl() const noexcept { return *impl_; }  ///< for the library itself

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern
