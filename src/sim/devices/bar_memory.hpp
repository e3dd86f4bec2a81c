// SPDX-License-Identifier: Apache-2.0
// BarMemory: the memory of a BAR, which a process may map too. It is whole pages, of which the BAR may use a part.
#pragma once

#include <cstddef>
#include <span>

namespace postern::sim {

class BarMemory {
 public:
  // Throws std::runtime_error where there is no memory.
  explicit BarMemory(std::size_t size);
  BarMemory(const BarMemory&) = delete;
  BarMemory& operator=(const BarMemory&) = delete;
  ~BarMemory();

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }  // to map it by

 private:
  std::span<std::byte> bytes_;  // as long as the BAR
  int fd_ = -1;
};

}  // namespace postern::sim
