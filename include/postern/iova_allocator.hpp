// SPDX-License-Identifier: Apache-2.0
// IovaAllocator: allocates iovas from the usable ranges of an IOMMU.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>

namespace postern {

/// Tracks which iovas are free. Makes no system calls and maps nothing. All addresses it returns lie within the usable
/// ranges and are multiples of the IOMMU's smallest page. allocate() never returns address 0, which drivers and devices
/// treat as "none"; allocate_at() may take it. Cost: O(log n) for n free ranges. If no longer range is free, one linear
/// scan of the size class looks for a suitably aligned range; a failure is cached until such a range is freed.
/// Thread safety: one thread at a time.
class POSTERN_API IovaAllocator {
 public:
  /// `usable`: Container::usable_ranges(); if the device cannot address all of it, clip_to_address_bits() of that.
  /// `page_sizes`: bitmap of the IOMMU's page sizes, Container::page_sizes(); sizes below 4 KiB are ignored. Ranges are
  /// trimmed to whole smallest pages.
  IovaAllocator(std::span<const IovaRange> usable, std::uint64_t page_sizes);
  ~IovaAllocator();
  IovaAllocator(IovaAllocator&&) noexcept;             ///< moves
  IovaAllocator& operator=(IovaAllocator&&) noexcept;  ///< moves

  /// Allocates `length` bytes, a multiple of the smallest page. Aligns them to the largest IOMMU page size not above
  /// `length`, so that huge pages can be used; if no free range permits that, to the next smaller size. Errors: EINVAL
  /// (length is zero or not a multiple of the smallest page), ENOSPC (no free range is long enough).
  [[nodiscard]] Result<Iova> allocate(std::uint64_t length);

  /// Allocates `length` bytes with exactly this alignment, a power of two. Errors: as above; EINVAL also for an invalid
  /// alignment.
  [[nodiscard]] Result<Iova> allocate(std::uint64_t length, std::uint64_t alignment);

  /// Allocates exactly this range. Errors: EINVAL (unaligned or empty), EOVERFLOW (runs past 2^64), ERANGE (outside the
  /// usable ranges: they are named), EEXIST (part of it is allocated).
  [[nodiscard]] Result<void> allocate_at(Iova iova, std::uint64_t length);

  /// Frees an allocation, or part of one. On an error nothing changes. Errors: EINVAL (unaligned or empty), EOVERFLOW
  /// (runs past 2^64), ERANGE (outside the usable ranges), ENOENT (part of it is already free).
  [[nodiscard]] Result<void> free(Iova iova, std::uint64_t length);

  [[nodiscard]] std::uint64_t bytes_free() const noexcept;    ///< 0 means 2^64 if ranges_free() is not 0
  [[nodiscard]] std::uint64_t ranges_free() const noexcept;   ///< number of free ranges
  [[nodiscard]] std::uint64_t largest_free() const noexcept;  ///< bytes in the longest free range; 0 as in bytes_free()

 private:
  class POSTERN_LOCAL State;
  std::unique_ptr<State> state_;
};

}  // namespace postern
