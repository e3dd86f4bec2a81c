// SPDX-License-Identifier: Apache-2.0
// VfToken: the token to open virtual functions, by the rules of vfio_pci_validate_vf_token (Linux 6.12).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <postern/host_device.hpp>

#include "host/requirements.hpp"
#include "host/sysfs.hpp"

namespace postern {

Result<VfToken> VfToken::parse(std::string_view uuid) {
  constexpr std::string_view shape = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
  VfToken token;
  std::string digits;
  bool fits = uuid.size() == shape.size();
  for (std::size_t i = 0; fits && i < shape.size(); ++i) {
    if (shape[i] == '-') {
      fits = uuid[i] == '-';
    } else {
      digits += uuid[i];
    }
  }
  for (std::size_t i = 0; fits && i < token.bytes.size(); ++i) {
    const char* const at = digits.data() + 2 * i;
    const auto read = std::from_chars(at, at + 2, token.bytes[i], 16);
    fits = read.ec == std::errc() && read.ptr == at + 2;
  }
  if (fits) return token;
  return failure({.code = EINVAL,
                  .object = fmt::format("VF token \"{}\"", uuid),
                  .reason = "it is not a UUID",
                  .remedy = RemedyCode::write_vf_token});
}

std::string to_string(const VfToken& token) {
  std::string text = fmt::format("{:02x}", fmt::join(token.bytes, ""));
  for (const std::size_t at : {8U, 13U, 18U, 23U}) text.insert(at, 1, '-');
  return text;
}

Result<std::optional<std::string>> physical_function_with_token(Kernel& kernel, const HostDevice& device) {
  auto name = POSTERN_TRY(sysfs::link_name(kernel, device.sysfs_path + "/physfn"));
  if (!name) return std::nullopt;
  const auto physical = POSTERN_TRY(find_host_device(kernel, "pci", *name));
  return physical.is_vfio ? std::move(name) : std::nullopt;
}

bool explain_vf_token(CallFailed& what, Kernel& kernel, const HostDevice& device) {
  if (what.result == -EACCES) {
    // If its name is unknown, the text leaves it out.
    const auto physical = physical_function_with_token(kernel, device).value_or(std::nullopt);
    const std::string whose = physical ? fmt::format("the driver of its physical function, {},", *physical)
                                       : "the driver of its physical function";
    what.reason = device.vf_token ? fmt::format("the VF token is not the one that {} has set", whose)
                                  : fmt::format("the device needs the VF token that {} has set", whose);
    what.remedy = RemedyCode::give_vf_token;
    return true;
  }
  if (what.result != -EINVAL || !device.vf_token) return false;
  what.reason =
      "it takes no VF token: it has none, and is not a virtual function of a function that is bound to vfio-pci; or "
      "the kernel does not support tokens with a cdev (before 6.17)";
  what.remedy = RemedyCode::omit_vf_token;
  return true;
}

}  // namespace postern
