// SPDX-License-Identifier: Apache-2.0
// The token that opens virtual functions, by the rules of vfio_pci_validate_vf_token (Linux 6.12).
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
                  .operation = {},
                  .object = fmt::format("VF token \"{}\"", uuid),
                  .reason = "it is no UUID",
                  .remedy = "write one as bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3 (\"uuidgen\" makes one)",
                  .causes = {}});
}

std::string to_string(const VfToken& token) {
  std::string text = fmt::format("{:02x}", fmt::join(token.bytes, ""));
  for (const std::size_t at : {8U, 13U, 18U, 23U}) text.insert(at, 1, '-');
  return text;
}

std::optional<std::string> physical_function_with_token(Kernel& kernel, const HostDevice& device) {
  const auto name = sysfs::link_name(kernel, device.sysfs_path + "/physfn");
  if (!name) return std::nullopt;
  const auto physical = find_host_device(kernel, "pci", *name);
  return physical && physical->is_vfio ? name : std::nullopt;
}

bool explain_vf_token(CallFailed& what, Kernel& kernel, const HostDevice& device) {
  if (what.result == -EACCES) {
    const auto physical = physical_function_with_token(kernel, device);
    const std::string whose = physical ? fmt::format("the driver of its physical function, {},", *physical)
                                       : "the driver of its physical function";
    what.reason = device.vf_token ? fmt::format("the VF token is not the one that {} has set", whose)
                                  : fmt::format("the device wants the VF token that {} has set", whose);
    what.remedy = "give that token (\"--vf-token UUID\", AttachOptions::vf_token)";
    return true;
  }
  if (what.result != -EINVAL || !device.vf_token) return false;
  what.reason =
      "it takes no VF token: it is no virtual function of one that is bound to vfio-pci, and has none itself; "
      "or the kernel takes none by a cdev (before 6.17)";
  what.remedy = "leave the token out, or use a backend that goes by groups";
  return true;
}

}  // namespace postern
