// SPDX-License-Identifier: Apache-2.0
// Formats sizes and ranges as the library's error messages do.
#pragma once

#include <cstdint>
#include <postern/export.hpp>
#include <postern/iova.hpp>
#include <span>
#include <string>

namespace postern {

/// Formats a size: "4 KiB", "16 GiB", "4097 bytes". Thread-safe.
[[nodiscard]] POSTERN_API std::string size_text(std::uint64_t bytes);
/// Formats a bitmap of page sizes: "4 KiB, 2 MiB, 1 GiB". Thread-safe.
[[nodiscard]] POSTERN_API std::string page_sizes_text(std::uint64_t bitmap);
/// Formats a list of ranges: "0x0-0xfff, 0x2000-0x2fff". Thread-safe.
[[nodiscard]] POSTERN_API std::string ranges_text(std::span<const IovaRange> ranges);

}  // namespace postern
