// SPDX-License-Identifier: Apache-2.0
// Little<T>: a number in memory or in a register in the byte order of PCI and NVMe, whatever the host's.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>

namespace postern::nvme {

template <std::unsigned_integral T>
[[nodiscard]] constexpr T swap_unless_little(T value) noexcept {
  if constexpr (std::endian::native == std::endian::little || sizeof(T) == 1) {
    return value;
  } else if constexpr (sizeof(T) == 2) {
    return __builtin_bswap16(value);
  } else if constexpr (sizeof(T) == 4) {
    return __builtin_bswap32(value);
  } else {
    return __builtin_bswap64(value);
  }
}

// Trivial, so that structures of it can be laid over a device's memory.
template <std::unsigned_integral T>
class Little {
 public:
  Little() noexcept = default;
  constexpr Little(T value) noexcept : raw_(swap_unless_little(value)) {}
  constexpr operator T() const noexcept { return swap_unless_little(raw_); }

  // Reads it anew, in one access: for memory that the device changes meanwhile.
  [[nodiscard]] T load() const noexcept { return swap_unless_little(*static_cast<const volatile T*>(&raw_)); }

 private:
  T raw_;
};

}  // namespace postern::nvme
