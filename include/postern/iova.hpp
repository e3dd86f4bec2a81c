// SPDX-License-Identifier: Apache-2.0
// Iova and IovaRange: addresses as a device sees them, through its IOMMU.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <string>
#include <string_view>

namespace postern {

// Thread rules of all here: as for int.

// An I/O virtual address, in bytes. A type of its own, so that it is never taken for a pointer or a length.
struct Iova {
  std::uint64_t value = 0;

  friend constexpr auto operator<=>(Iova, Iova) = default;
  friend constexpr Iova operator+(Iova iova, std::uint64_t bytes) { return {iova.value + bytes}; }
  friend constexpr Iova operator-(Iova iova, std::uint64_t bytes) { return {iova.value - bytes}; }
  friend constexpr std::uint64_t operator-(Iova a, Iova b) { return a.value - b.value; }
};

// A range of iovas, both ends inclusive (as struct vfio_iova_range and struct iommu_iova_range have it), so that the
// whole 64-bit space has a spelling. Never empty: first <= last.
struct IovaRange {
  Iova first;
  Iova last;

  // The range of `length` bytes from `first`; nothing where that is empty or runs past 2^64.
  [[nodiscard]] static constexpr std::optional<IovaRange> from_length(Iova first, std::uint64_t length) {
    if (length == 0 || first.value + (length - 1) < first.value) return std::nullopt;
    return IovaRange{first, first + (length - 1)};
  }

  // Bytes; 0 stands for 2^64, the whole space.
  [[nodiscard]] constexpr std::uint64_t length() const { return last - first + 1; }
  [[nodiscard]] constexpr bool contains(Iova iova) const { return first <= iova && iova <= last; }
  [[nodiscard]] constexpr bool contains(IovaRange other) const { return first <= other.first && other.last <= last; }
  [[nodiscard]] constexpr bool overlaps(IovaRange other) const { return first <= other.last && other.first <= last; }
  friend constexpr bool operator==(IovaRange, IovaRange) = default;
};

// What the device may do with mapped memory.
enum class Access : std::uint8_t { read = 1, write = 2, read_write = 3 };

[[nodiscard]] POSTERN_API std::string to_string(Iova iova);           // "0x1000"
[[nodiscard]] POSTERN_API std::string to_string(IovaRange range);     // "0x1000-0x1fff"
[[nodiscard]] POSTERN_API std::string_view to_string(Access access);  // "read", "write", "read and write"

}  // namespace postern
