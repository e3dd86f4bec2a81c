// SPDX-License-Identifier: Apache-2.0
// FilePages: a part of a file that IOMMU_IOAS_MAP_FILE maps for devices.
#pragma once

#include <cstddef>
#include <cstdint>

namespace postern::sim {

// Its addresses in this process are reserved from the beginning, and have memory once it is pinned: only then the type
// and length of the file are checked. If the file is truncated, devices lose its pages, which the real kernel would
// keep.
class FilePages {
 public:
  // Keeps the file open. A simulated file, or any other that is not in memory, never has pages. The range must not
  // overflow 64 bits.
  FilePages(int fd, std::uint64_t start, std::uint64_t length);
  ~FilePages();
  FilePages(const FilePages&) = delete;
  FilePages& operator=(const FilePages&) = delete;

  // The address of the byte at `start`, with the same alignment, up to a huge page.
  [[nodiscard]] std::uintptr_t address() const noexcept { return address_; }
  // memfd_pin_folios of these whole pages: 0, -EINVAL or -ENOMEM; -EMFILE if this process has no fds left.
  [[nodiscard]] int fill(std::uintptr_t address, std::uint64_t length);

 private:
  int fd_;                       // negative: the negated errno
  std::uintptr_t reserved_ = 0;  // 0: there was no free range
  std::uint64_t reserved_length_ = 0;
  bool is_lost_ = false;  // mapping over it failed: part of it may be in use elsewhere, so it is not touched again
  std::uint64_t start_;
  std::uintptr_t address_;
};

}  // namespace postern::sim
