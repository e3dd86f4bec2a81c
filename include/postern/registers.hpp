// SPDX-License-Identifier: Apache-2.0
// Register<T>: a register of a device in a mapping of its BAR; and registers_at(), which finds registers in a mapping.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <postern/barriers.hpp>
#include <postern/export.hpp>
#include <postern/little_endian.hpp>
#include <postern/result.hpp>
#include <span>
#include <type_traits>

namespace postern {

/// A little-endian register of 8, 16, 32 or 64 bits. Not constructed, but found in a mapping by registers_at(). Each
/// read() and write() is a single access of the register's width; they are ordered as readl() and writel() of Linux: a
/// device that sees a write() sees what was written to memory before, and what is read from memory after a read() is no
/// older than what that returned. The bus may hold a write() back until a register of the device is read. A device that
/// is gone reads as all ones; with memory decoding off (PciDevice::enable_memory()) an access may raise SIGBUS.
/// Thread safety: any thread, as the device allows.
template <std::unsigned_integral T>
class alignas(sizeof(T)) Register {
 public:
  Register() noexcept = default;
  Register(const Register&) = delete;
  Register& operator=(const Register&) = delete;

  /// One load of the register's width.
  [[nodiscard]] T read() const noexcept {
    const T value = little_endian(*static_cast<const volatile T*>(&raw_));
    order_after_read();
    return value;
  }
  /// One store of the register's width.
  void write(T value) noexcept {
    order_before_write();
    *static_cast<volatile T*>(&raw_) = little_endian(value);
  }

 private:
  // On x86 and arm64 the barriers for memory order registers, too.
  static void order_after_read() noexcept {
#if defined(__x86_64__) || defined(__aarch64__)
    dma_rmb();
#else
    mb();
#endif
  }
  static void order_before_write() noexcept {
#if defined(__x86_64__) || defined(__aarch64__)
    dma_wmb();
#else
    mb();
#endif
  }

  T raw_;
};

/// Checks what registers_at() checks: that `length` bytes from `offset` lie within the mapping, at an address that is a
/// multiple of `alignment`. Errors: as there.
[[nodiscard]] POSTERN_API Result<void> check_registers(std::span<const std::byte> mapping, std::uint64_t offset,
                                                       std::size_t length, std::size_t alignment);

/// Returns the registers at `offset` bytes in a mapping, such as Mmap::bytes() of a BAR. `Layout` is a Register, or a
/// structure of Registers and gaps in the order of the device's specification. The place is checked here, once;
/// accesses are not checked. Borrows the mapping. Errors: EINVAL (unaligned for a register of the layout), ERANGE (not
/// within the mapping).
template <typename Layout>
[[nodiscard]] Result<Layout*> registers_at(std::span<std::byte> mapping, std::uint64_t offset = 0) {
  static_assert(std::is_standard_layout_v<Layout> && std::is_trivially_default_constructible_v<Layout> &&
                    std::is_trivially_destructible_v<Layout>,
                "a layout has Registers and plain data alone");
  if (auto done = check_registers(mapping, offset, sizeof(Layout), alignof(Layout)); !done) return failure_of(done);
  return reinterpret_cast<Layout*>(mapping.data() + offset);
}

}  // namespace postern
