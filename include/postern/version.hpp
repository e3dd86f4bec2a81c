// SPDX-License-Identifier: Apache-2.0
// The version of these headers, and of the library that runs. docs/versions.md says what a new number means.
#pragma once

#include <postern/export.hpp>
#include <string_view>

#define POSTERN_VERSION_MAJOR 0
#define POSTERN_VERSION_MINOR 1
#define POSTERN_VERSION_PATCH 0
// To be compared: 1.2.3 is 1002003.
#define POSTERN_VERSION (POSTERN_VERSION_MAJOR * 1000000 + POSTERN_VERSION_MINOR * 1000 + POSTERN_VERSION_PATCH)

namespace postern {

// "1.2.3": of the library that is linked, which may be another than that of the headers.
[[nodiscard]] POSTERN_API std::string_view version() noexcept;

}  // namespace postern
