// SPDX-License-Identifier: Apache-2.0
// PciAddress: the address of a PCI function: domain, bus, device, function.
#pragma once

#include <compare>
#include <cstdint>
#include <postern/export.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>

namespace postern {

/// The address of a PCI function. Thread safety: as int.
struct POSTERN_API PciAddress {
  std::uint32_t domain = 0;   ///< more than 16 bits: VMD and Hyper-V use such domains
  std::uint8_t bus = 0;       ///< 0..255
  std::uint8_t device = 0;    ///< 0..31
  std::uint8_t function = 0;  ///< 0..7

  /// Parses "0000:00:01.0" or, for domain 0, "00:01.0". Errors: EINVAL, with the expected form.
  [[nodiscard]] static Result<PciAddress> parse(std::string_view text);

  friend constexpr auto operator<=>(PciAddress, PciAddress) = default;  ///< by domain, bus, device and function
};

/// Formats an address as sysfs does: "0000:00:01.0".
[[nodiscard]] POSTERN_API std::string to_string(PciAddress address);

}  // namespace postern
