// SPDX-License-Identifier: Apache-2.0
// version(): the version of the library.
#include <postern/version.hpp>

#define POSTERN_TEXT_OF(number) #number
#define POSTERN_TEXT(number) POSTERN_TEXT_OF(number)

namespace postern {

std::string_view version() noexcept {
  return POSTERN_TEXT(POSTERN_VERSION_MAJOR) "." POSTERN_TEXT(POSTERN_VERSION_MINOR) "." POSTERN_TEXT(
      POSTERN_VERSION_PATCH);
}

}  // namespace postern
