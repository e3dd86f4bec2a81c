// SPDX-License-Identifier: Apache-2.0
// FilePages: a part of a file that IOMMU_IOAS_MAP_FILE maps for devices.
#pragma once

#include <cstddef>
#include <cstdint>

namespace postern::sim {

// It has addresses in this process from the beginning, and memory there when it is pinned: before that nobody asks
// whether the file is one of memory, and so long. A file that becomes shorter takes its pages from the devices, too,
// which the real kernel would leave them.
class FilePages {
 public:
  // Keeps the file open. One of the simulated kernel's own, or any other that is none of memory, never has pages.
  // The range does not reach over the end of what 64 bits can say.
  FilePages(int fd, std::uint64_t start, std::uint64_t length);
  ~FilePages();
  FilePages(const FilePages&) = delete;
  FilePages& operator=(const FilePages&) = delete;

  // Of the byte at `start`; it is as much aligned as that, up to a huge page.
  [[nodiscard]] std::uintptr_t address() const noexcept { return address_; }
  // memfd_pin_folios of these whole pages: 0, -EINVAL or -ENOMEM; -EMFILE where this process has no fds left.
  [[nodiscard]] int fill(std::uintptr_t address, std::uint64_t length);

 private:
  int fd_;                       // negative: the negated errno
  std::uintptr_t reserved_ = 0;  // 0: there was no room for so much
  std::uint64_t reserved_length_ = 0;
  bool is_lost_ = false;  // mapping over it failed: part of it may be somebody else's, so it is let be
  std::uint64_t start_;
  std::uintptr_t address_;
};

}  // namespace postern::sim
