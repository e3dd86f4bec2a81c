// SPDX-License-Identifier: Apache-2.0
// IovaAllocator: hands out iovas from the ranges that an IOMMU can use.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>

namespace postern {

// Keeps book of which iovas are free; makes no system call and maps nothing. Every address it gives lies inside the
// usable ranges it was made with, and is a multiple of the IOMMU's smallest page. Address 0 is never chosen (drivers
// and devices take it for "none"), but may be asked for with allocate_at(). Cost: allocate, allocate_at and free take
// O(log n) for n free ranges; but where nothing longer is left, an allocate looks through the ranges of about its own
// length for one with the right alignment, once until such a range is freed. Thread rules: one thread at a time.
class POSTERN_API IovaAllocator {
 public:
  // `usable`: Container::usable_ranges(), perhaps clipped to what the device can address. `page_sizes`: the IOMMU's
  // page sizes as a bitmap, Container::page_sizes(); the smallest is at least 4 KiB. The ends of a range that fill no
  // smallest page are left out.
  IovaAllocator(std::span<const IovaRange> usable, std::uint64_t page_sizes);
  ~IovaAllocator();
  IovaAllocator(IovaAllocator&&) noexcept;
  IovaAllocator& operator=(IovaAllocator&&) noexcept;

  // An iova for `length` bytes (a multiple of the smallest page), aligned to the largest page size of the IOMMU that is
  // not larger than `length`, so that huge pages can be used; where no free range allows that, to the next smaller one.
  // Errors: EINVAL (length is zero or no multiple of the smallest page), ENOSPC (no free range is long enough).
  [[nodiscard]] Result<Iova> allocate(std::uint64_t length);

  // The same with an alignment of the caller's, a power of two, that must be kept. Errors: as above, EINVAL
  // (alignment).
  [[nodiscard]] Result<Iova> allocate(std::uint64_t length, std::uint64_t alignment);

  // Takes exactly this range. Errors: EINVAL (unaligned or empty), EOVERFLOW (it runs past 2^64), ERANGE (outside the
  // usable ranges: they are named), EEXIST (some of it is taken).
  [[nodiscard]] Result<void> allocate_at(Iova iova, std::uint64_t length);

  // Gives back what allocate or allocate_at gave, whole or in parts. Errors: EINVAL (unaligned or empty), EOVERFLOW
  // (it runs past 2^64), ERANGE (outside the usable ranges), ENOENT (some of it is free already). On an error nothing
  // changes.
  [[nodiscard]] Result<void> free(Iova iova, std::uint64_t length);

  [[nodiscard]] std::uint64_t bytes_free() const noexcept;    // 0 stands for 2^64 only if ranges_free() is not 0
  [[nodiscard]] std::uint64_t ranges_free() const noexcept;   // how many pieces the free space is in
  [[nodiscard]] std::uint64_t largest_free() const noexcept;  // bytes of the longest free range

 private:
  class POSTERN_LOCAL State;
  std::unique_ptr<State> state_;
};

}  // namespace postern
