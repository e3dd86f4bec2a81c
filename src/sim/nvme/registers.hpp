// SPDX-License-Identifier: Apache-2.0
// NvmeRegisters: the controller's side of BAR 0, memory that the driver writes to meanwhile.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace postern::sim {

class NvmeRegisters {
 public:
  NvmeRegisters() = default;
  explicit NvmeRegisters(std::span<std::byte> bar) : bar_(bar) {}

  // What the driver wrote to memory before it wrote what is read here, is seen after this.
  [[nodiscard]] std::uint32_t read(std::size_t offset) const {
    return little(reg(offset).load(std::memory_order_acquire));
  }
  // And the other way round: who sees this sees what was done before.
  void write(std::size_t offset, std::uint32_t value) const {
    reg(offset).store(little(value), std::memory_order_release);
  }

  // In halves: a driver that has only one of them written has not enabled the controller yet.
  [[nodiscard]] std::uint64_t read64(std::size_t offset) const {
    return std::uint64_t{read(offset + 4)} << 32 | read(offset);
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
