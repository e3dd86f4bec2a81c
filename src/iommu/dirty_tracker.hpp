// SPDX-License-Identifier: Apache-2.0
// DirtyTracker::Impl: the source that tracks each device of an address space, and dirty pages that are not reported
// yet.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <postern/dirty_tracker.hpp>
#include <span>
#include <string>
#include <vector>

#include "iommu/address_space.hpp"
#include "iommu/dirty_log.hpp"
#include "memory/page_set.hpp"

namespace postern {

class DirtyTracker::Impl {
 public:
  // `log` is the IOMMU's.
  Impl(AddressSpace& space, DirtyLog& log) noexcept : space_(&space), log_(&log) {}

  [[nodiscard]] AddressSpace& space() const noexcept { return *space_; }

  // These are DirtyTracker's functions of the same names.
  [[nodiscard]] Result<void> start(std::optional<DirtySource> only);
  [[nodiscard]] Result<void> stop();
  [[nodiscard]] bool is_on() const noexcept { return on_; }
  [[nodiscard]] Result<DirtyAnswer> query(IovaRange range, const DirtyBitmap& bitmap, AfterQuery after);
  [[nodiscard]] Result<DirtyAnswer> unmap(Iova iova, std::uint64_t length, const DirtyBitmap& bitmap);
  [[nodiscard]] std::vector<TrackedDevice> devices() const;

  // Who will track a device that comes from another container; none if tracking is off. Refuses as join() will.
  [[nodiscard]] Result<DirtySource> source_of(const Attached& device) const;
  // A device was attached: if tracking is on, it is tracked, too. `object` is for errors. One that was moved may have
  // written already; if its IOMMU tracks it, its page table was tracked before it came.
  [[nodiscard]] Result<void> join(Attached& device, std::uint64_t smallest_page, const std::string& object,
                                  bool is_moved);
  // A device is about to be detached, or is on another container's page table: keeps the pages it has written.
  void leave(Attached& device) noexcept;
  // It has come back after leave(). If its writes can no longer be tracked, every page counts as dirty.
  void come_back(Attached& device) noexcept;

 private:
  [[nodiscard]] TrackedDevice choose(const Attached& device) const;
  [[nodiscard]] tl::unexpected<Error> refuse_untracked(const std::vector<std::string>& devices) const;
  [[nodiscard]] Result<void> start_devices(std::span<Attached* const> devices);
  [[nodiscard]] bool is_everything_dirty() const;
  [[nodiscard]] DirtyAnswer answer() const;
  [[nodiscard]] Result<void> check(IovaRange range, const DirtyBitmap& bitmap) const;
  [[nodiscard]] Result<void> collect(const DirtyRequest& request, AfterQuery after);
  [[nodiscard]] Result<void> collect_devices(const DirtyRequest& request);
  [[nodiscard]] Result<void> unmap_one(IovaRange mapping, Iova first, const DirtyBitmap& bitmap);
  void collect_pending();
  void keep_everything() noexcept;
  [[nodiscard]] std::uint64_t* cleared_words(IovaRange range);

  AddressSpace* space_;
  DirtyLog* log_;
  std::unique_ptr<memory::PageSet> pending_;  // dirty pages collected from the sources, not yet reported
  std::vector<std::uint64_t> scratch_;
  std::optional<DirtySource> only_;
  std::uint64_t page_size_ = 0;  // while on: the container's smallest page
  bool on_ = false;
  bool lost_ = false;  // memory ran out for dirty state: every page is dirty until tracking stops
};

}  // namespace postern
