// SPDX-License-Identifier: Apache-2.0
// Iovas in words.
#include <fmt/format.h>

#include <postern/iova.hpp>

namespace postern {

std::string to_string(Iova iova) { return fmt::format("{:#x}", iova.value); }

std::string to_string(IovaRange range) { return fmt::format("{:#x}-{:#x}", range.first.value, range.last.value); }

std::string_view to_string(Access access) {
  switch (access) {
    case Access::read:
      return "read";
    case Access::write:
      return "write";
    case Access::read_write:
      break;
  }
  return "read and write";
}

}  // namespace postern
