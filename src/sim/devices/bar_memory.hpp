// SPDX-License-Identifier: Apache-2.0
// BarMemory: the memory of all BARs of a machine, which a process can map.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace postern::sim {

// One file for all of them, so that a host needs only one fd.
class BarMemory {
 public:
  BarMemory() = default;
  BarMemory(const BarMemory&) = delete;
  BarMemory& operator=(const BarMemory&) = delete;
  ~BarMemory();

  // The size that a BAR takes: whole pages, which it may use only in part.
  [[nodiscard]] static std::uint64_t length_for(std::uint64_t size) { return (size + page - 1) & ~(page - 1); }
  // Allocates this many zeroed bytes: 0 or a negated errno. Called once.
  [[nodiscard]] int make(std::uint64_t length);

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }  // to map them by

 private:
  static constexpr std::uint64_t page = 4096;

  std::span<std::byte> bytes_;
  int fd_ = -1;
};

}  // namespace postern::sim
