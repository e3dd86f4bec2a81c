// SPDX-License-Identifier: Apache-2.0
// Registers: the hardware's access to a BAR, which the driver may write to at the same time.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <postern/little_endian.hpp>
#include <span>

namespace postern::sim {

class Registers {
 public:
  Registers() = default;
  explicit Registers(std::span<std::byte> bar) : bar_(bar) {}

  // Acquire: memory that the driver wrote before this register is visible afterwards.
  [[nodiscard]] std::uint32_t read(std::size_t offset) const {
    return little_endian(reg(offset).load(std::memory_order_acquire));
  }
  // Release: a driver that reads this value also sees earlier writes.
  void write(std::size_t offset, std::uint32_t value) const {
    reg(offset).store(little_endian(value), std::memory_order_release);
  }

  // In halves: a driver may have written only one of them yet.
  [[nodiscard]] std::uint64_t read64(std::size_t offset) const {
    return std::uint64_t{read(offset + 4)} << 32 | read(offset);
  }

  // Writes unless the driver has changed the value that the hardware knows: then returns false.
  [[nodiscard]] bool replace(std::size_t offset, std::uint32_t known, std::uint32_t value) const {
    std::uint32_t expected = little_endian(known);
    return reg(offset).compare_exchange_strong(expected, little_endian(value));
  }
  // Reads the driver's value, and replaces it by `left`.
  [[nodiscard]] std::uint32_t take(std::size_t offset, std::uint32_t left) const {
    return little_endian(reg(offset).exchange(little_endian(left)));
  }

  // Undoes a driver's write to a read-only register.
  void keep(std::size_t offset, std::uint32_t value) const {
    if (read(offset) != value) write(offset, value);
  }
  void clear() const {
    for (std::size_t offset = 0; offset < bar_.size(); offset += sizeof(std::uint32_t)) write(offset, 0);
  }

 private:
  [[nodiscard]] std::atomic_ref<std::uint32_t> reg(std::size_t offset) const {
    return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(bar_.data() + offset));
  }

  std::span<std::byte> bar_;
};

}  // namespace postern::sim
