// SPDX-License-Identifier: Apache-2.0
// check_registers(): whether registers lie within a mapping.
#include <postern/registers.hpp>

#include <fmt/format.h>

#include <cerrno>

namespace postern {

Result<void> check_registers(std::span<const std::byte> mapping, std::uint64_t offset, std::size_t length,
                             std::size_t alignment) {
  const auto refused = [&](int code, std::string reason) {
    return failure({.code = code,
                    .operation = {},
                    .object = fmt::format("registers at {:#x}, {} bytes", offset, length),
                    .reason = std::move(reason),
                    .remedy = {},
                    .causes = {}});
  };
  if (length > mapping.size() || offset > mapping.size() - length) {
    return refused(ERANGE, fmt::format("the mapping has {:#x} bytes", mapping.size()));
  }
  if ((reinterpret_cast<std::uintptr_t>(mapping.data()) + offset) % alignment != 0) {
    return refused(EINVAL, fmt::format("their address is not a multiple of {}", alignment));
  }
  return {};
}

}  // namespace postern
