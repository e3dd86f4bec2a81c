// SPDX-License-Identifier: Apache-2.0
// BarMemory: the memory of all BARs of a machine, which a process may map too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace postern::sim {

// One file for all of them, so that a host takes one fd, however many functions it has.
class BarMemory {
 public:
  BarMemory() = default;
  BarMemory(const BarMemory&) = delete;
  BarMemory& operator=(const BarMemory&) = delete;
  ~BarMemory();

  // What a BAR takes of it: whole pages, of which the BAR may use a part.
  [[nodiscard]] static std::uint64_t length_for(std::uint64_t size) { return (size + page - 1) & ~(page - 1); }
  // Makes so many bytes, zeroed: 0 or a negated errno. Once.
  [[nodiscard]] int make(std::uint64_t length);

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] int fd() const noexcept { return fd_; }  // to map them by

 private:
  static constexpr std::uint64_t page = 4096;

  std::span<std::byte> bytes_;
  int fd_ = -1;
};

}  // namespace postern::sim
