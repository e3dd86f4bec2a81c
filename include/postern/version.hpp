// SPDX-License-Identifier: Apache-2.0
// The version of the headers and of the linked library. docs/versions.md defines when each number changes.
#pragma once

#include <postern/export.hpp>
#include <string_view>

#define POSTERN_VERSION_MAJOR 0
#define POSTERN_VERSION_MINOR 1
#define POSTERN_VERSION_PATCH 0
/// The version of the headers as one number, for comparisons: 1.2.3 is 1002003.
#define POSTERN_VERSION (POSTERN_VERSION_MAJOR * 1000000 + POSTERN_VERSION_MINOR * 1000 + POSTERN_VERSION_PATCH)

namespace postern {

/// Returns the version of the linked library, "1.2.3", which may differ from that of the headers.
[[nodiscard]] POSTERN_API std::string_view version() noexcept;

}  // namespace postern
