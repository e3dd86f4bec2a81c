// SPDX-License-Identifier: Apache-2.0
// Registers: the hardware's side of a BAR, memory that the driver writes to meanwhile.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace postern::sim {

class Registers {
 public:
  Registers() = default;
  explicit Registers(std::span<std::byte> bar) : bar_(bar) {}

  // What the driver wrote to memory before it wrote what is read here, is seen after this.
  [[nodiscard]] std::uint32_t read(std::size_t offset) const {
    return little(reg(offset).load(std::memory_order_acquire));
  }
  // And the other way round: who sees this sees what was done before.
  void write(std::size_t offset, std::uint32_t value) const {
    reg(offset).store(little(value), std::memory_order_release);
  }

  // In halves: whoever writes only one of them has not told the hardware to look yet.
  [[nodiscard]] std::uint64_t read64(std::size_t offset) const {
    return std::uint64_t{read(offset + 4)} << 32 | read(offset);
  }

  // Writes unless the driver has put something else there than what the hardware knows of: false where it has.
  [[nodiscard]] bool replace(std::size_t offset, std::uint32_t known, std::uint32_t value) const {
    std::uint32_t expected = little(known);
    return reg(offset).compare_exchange_strong(expected, little(value));
  }
  // What the driver put there, which is gone with that.
  [[nodiscard]] std::uint32_t take(std::size_t offset, std::uint32_t left) const {
    return little(reg(offset).exchange(little(left)));
  }

  // Makes up for a driver that writes to a register that it can only read.
  void keep(std::size_t offset, std::uint32_t value) const {
    if (read(offset) != value) write(offset, value);
  }
  void clear() const {
    for (std::size_t offset = 0; offset < bar_.size(); offset += sizeof(std::uint32_t)) write(offset, 0);
  }

 private:
  [[nodiscard]] static constexpr std::uint32_t little(std::uint32_t value) {
    return std::endian::native == std::endian::little ? value : __builtin_bswap32(value);
  }
  [[nodiscard]] std::atomic_ref<std::uint32_t> reg(std::size_t offset) const {
    return std::atomic_ref<std::uint32_t>(*reinterpret_cast<std::uint32_t*>(bar_.data() + offset));
  }

  std::span<std::byte> bar_;
};

}  // namespace postern::sim
