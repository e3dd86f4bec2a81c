// SPDX-License-Identifier: Apache-2.0
// PciAddress: where a PCI function sits: domain, bus, device, function.
#pragma once

#include <compare>
#include <cstdint>
#include <postern/export.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>

namespace postern {

// Thread rules of all here: as for int.
struct POSTERN_API PciAddress {
  std::uint32_t domain = 0;  // VMD and Hyper-V use domains beyond 16 bits
  std::uint8_t bus = 0;
  std::uint8_t device = 0;    // 0..31
  std::uint8_t function = 0;  // 0..7

  // Reads "0000:00:01.0" or, in domain 0, "00:01.0". Errors: EINVAL, with the form that is expected.
  [[nodiscard]] static Result<PciAddress> parse(std::string_view text);

  friend constexpr auto operator<=>(PciAddress, PciAddress) = default;
};

// As sysfs spells it: "0000:00:01.0".
[[nodiscard]] POSTERN_API std::string to_string(PciAddress address);

}  // namespace postern
