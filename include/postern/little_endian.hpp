// SPDX-License-Identifier: Apache-2.0
// LittleEndian<T>: a number in the byte order of PCI, and of most devices, whatever the host's.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <postern/export.hpp>  // names the option where the standard is older

namespace postern {

/// Converts a number between the host's byte order and little-endian, in either direction.
template <std::unsigned_integral T>
[[nodiscard]] constexpr T little_endian(T value) noexcept {
  if constexpr (std::endian::native == std::endian::little || sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    static_assert(sizeof(T) == 8);
    return __builtin_bswap64(value);
  }
}

/// A little-endian number in memory, of 8, 16, 32 or 64 bits; converts from and to the host's T. Trivial, of T's size
/// and alignment, so that structures of it can be laid over memory that a device shares. Thread safety: as T. For
/// registers see Register, for the order of accesses barriers.hpp.
template <std::unsigned_integral T>
class LittleEndian {
 public:
  LittleEndian() noexcept = default;
  /// From the order of the host.
  constexpr LittleEndian(T value) noexcept : raw_(little_endian(value)) {}
  /// In the order of the host.
  constexpr operator T() const noexcept { return little_endian(raw_); }

  /// Reads it from memory in a single access, each time: for what the device changes meanwhile.
  [[nodiscard]] T load() const noexcept { return little_endian(*static_cast<const volatile T*>(&raw_)); }
  /// Writes it to memory in a single access, each time: for what the device reads meanwhile.
  void store(T value) noexcept { *static_cast<volatile T*>(&raw_) = little_endian(value); }

 private:
  T raw_;
};

using Le16 = LittleEndian<std::uint16_t>;  ///< __le16 of Linux
using Le32 = LittleEndian<std::uint32_t>;  ///< __le32
using Le64 = LittleEndian<std::uint64_t>;  ///< __le64

}  // namespace postern
