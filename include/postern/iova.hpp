// SPDX-License-Identifier: Apache-2.0
// Iova and IovaRange: addresses that a device uses and its IOMMU translates. Thread safety: as int.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// An I/O virtual address, in bytes. A distinct type, so that it cannot be confused with a pointer or a length.
struct Iova {
  std::uint64_t value = 0;  ///< bytes

  /// Compares addresses.
  friend constexpr auto operator<=>(Iova, Iova) = default;
  /// The address `bytes` above; wraps at 2^64.
  friend constexpr Iova operator+(Iova iova, std::uint64_t bytes) { return {iova.value + bytes}; }
  /// The address `bytes` below; wraps at 0.
  friend constexpr Iova operator-(Iova iova, std::uint64_t bytes) { return {iova.value - bytes}; }
  /// The distance from b to a, in bytes.
  friend constexpr std::uint64_t operator-(Iova a, Iova b) { return a.value - b.value; }
};

/// A range of iovas with inclusive ends, as in struct vfio_iova_range and struct iommu_iova_range, so that it can
/// represent the whole 64-bit space. Never empty: first <= last.
struct IovaRange {
  Iova first;  ///< lowest address
  Iova last;   ///< highest address, inclusive

  /// Returns the range of `length` bytes from `first`; nullopt if it would be empty or run past 2^64.
  [[nodiscard]] static constexpr std::optional<IovaRange> from_length(Iova first, std::uint64_t length) {
    if (length == 0 || first.value + (length - 1) < first.value) return std::nullopt;
    return IovaRange{first, first + (length - 1)};
  }

  /// Returns the length in bytes; 0 means 2^64, the whole space.
  [[nodiscard]] constexpr std::uint64_t length() const { return last - first + 1; }
  /// Whether the address is in the range.
  [[nodiscard]] constexpr bool contains(Iova iova) const { return first <= iova && iova <= last; }
  /// Whether all of the other range is in this one.
  [[nodiscard]] constexpr bool contains(IovaRange other) const { return first <= other.first && other.last <= last; }
  /// Whether the ranges have an address in common.
  [[nodiscard]] constexpr bool overlaps(IovaRange other) const { return first <= other.last && other.first <= last; }
  /// Compares both ends.
  friend constexpr bool operator==(IovaRange, IovaRange) = default;
};

/// Returns what a device with `address_bits` address bits can use of some ranges, such as Container::usable_ranges():
/// the iovas below 2^address_bits, in the same order. 64 bits and more leave the ranges as they are. Ranges of which
/// nothing is left are dropped, so the result may be empty. Pass it to an IovaAllocator. Thread-safe.
[[nodiscard]] POSTERN_API std::vector<IovaRange> clip_to_address_bits(std::span<const IovaRange> ranges,
                                                                      unsigned address_bits);

/// What devices may do with mapped memory.
enum class Access : std::uint8_t { read = 1, write = 2, read_write = 3 };

/// Whether it is one of the values above, and not another number that was cast.
[[nodiscard]] constexpr bool is_valid(Access access) noexcept {
  return access >= Access::read && access <= Access::read_write;
}

[[nodiscard]] POSTERN_API std::string to_string(Iova iova);           ///< "0x1000"
[[nodiscard]] POSTERN_API std::string to_string(IovaRange range);     ///< "0x1000-0x1fff"
[[nodiscard]] POSTERN_API std::string_view to_string(Access access);  ///< "read", "write", "read and write"

}  // namespace postern
