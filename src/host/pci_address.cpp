// SPDX-License-Identifier: Apache-2.0
// PciAddress: parses and formats PCI addresses.
#include <fmt/format.h>

#include <charconv>
#include <postern/pci_address.hpp>

namespace postern {
namespace {

// Removes a hexadecimal field of at most `digits` digits from the front, with the character after it; `behind` 0 means
// the end.
bool take_field(std::string_view& text, std::size_t digits, char behind, std::uint32_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  const auto length = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || length > digits) return false;
  text.remove_prefix(length);
  if (behind == '\0') return text.empty();
  if (text.empty() || text.front() != behind) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

Result<PciAddress> PciAddress::parse(std::string_view text) {
  std::string_view rest = text;
  std::uint32_t domain = 0;
  std::uint32_t bus = 0;
  std::uint32_t device = 0;
  std::uint32_t function = 0;
  const bool has_domain = text.find(':') != text.rfind(':');
  const bool well_formed = (!has_domain || take_field(rest, 8, ':', domain)) && take_field(rest, 2, ':', bus) &&
                           take_field(rest, 2, '.', device) && take_field(rest, 1, '\0', function) && device < 32 &&
                           function < 8;
  if (!well_formed) {
    return failure({.code = EINVAL,
                    .object = fmt::format("PCI address \"{}\"", text),
                    .reason = "not of the form DOMAIN:BUS:DEVICE.FUNCTION",
                    .remedy = RemedyCode::write_pci_address});
  }
  return PciAddress{.domain = domain,
                    .bus = static_cast<std::uint8_t>(bus),
                    .device = static_cast<std::uint8_t>(device),
                    .function = static_cast<std::uint8_t>(function)};
}

std::string to_string(PciAddress address) {
  return fmt::format("{:04x}:{:02x}:{:02x}.{:x}", address.domain, address.bus, address.device, address.function);
}

}  // namespace postern
