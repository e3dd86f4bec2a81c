// SPDX-License-Identifier: Apache-2.0
// Sizes as people write and read them: "64M", "1G", "all"; "64 MiB", "1.5 GiB".
#pragma once

#include <cstdint>
#include <optional>
#include <postern/result.hpp>
#include <string>
#include <string_view>

namespace postern::tool {

// Reads "4096", "64K", "64M", "1G", "2T", also with "B" or "iB" behind, in either case. Units are powers of 1024.
// Errors: EINVAL (not a size, or zero), ERANGE (beyond 64 bits).
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);

// The same, of memory: ERANGE as well beyond the 64 PiB that a process can have at most.
[[nodiscard]] Result<std::uint64_t> parse_memory(std::string_view text);

// The same as parse_size(), or nothing for "all".
[[nodiscard]] Result<std::optional<std::uint64_t>> parse_size_or_all(std::string_view text);

// "64 MiB" where that is exact, "1.5 GiB" where it is rounded, "4097 bytes" below 10 KiB.
[[nodiscard]] std::string size_text(std::uint64_t bytes);

// "350 MiB/s"; "-" where no time has passed.
[[nodiscard]] std::string rate_text(std::uint64_t bytes, double seconds);

// "3.2 ms", "1.24 s".
[[nodiscard]] std::string duration_text(double seconds);

// counted(1, "capability", "capabilities") is "1 capability"; of 0 and 2 there are "capabilities".
[[nodiscard]] std::string counted(std::uint64_t count, std::string_view one, std::string_view more);

// 11408 as "11,408".
[[nodiscard]] std::string count_text(std::uint64_t count);

// A bitmap of page sizes: "4 KiB, 2 MiB, 1 GiB". A kernel that takes every power of two from some size on is put short.
[[nodiscard]] std::string page_sizes_text(std::uint64_t bitmap);

}  // namespace postern::tool
