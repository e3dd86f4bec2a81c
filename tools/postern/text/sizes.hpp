// SPDX-License-Identifier: Apache-2.0
// Parses sizes ("64M", "1G", "all"), and formats sizes ("1.5 GiB"), rates, durations and counts.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/result.hpp>
#include <string>
#include <string_view>

namespace postern::tool {

// Reads "4096", "64K", "64M", "1G", "2T", also followed by "B" or "iB", in either case. Units are powers of 1024.
// Errors: EINVAL (not a size, or zero), ERANGE (beyond 64 bits).
[[nodiscard]] Result<std::uint64_t> parse_size(std::string_view text);

// The same for memory. Errors: also ERANGE for more than the 64 PiB that a process can have.
[[nodiscard]] Result<std::uint64_t> parse_memory(std::string_view text);

// The same as parse_size(); nothing for "all".
[[nodiscard]] Result<std::optional<std::uint64_t>> parse_size_or_all(std::string_view text);

// "64 MiB" if exact, "1.5 GiB" if rounded, "4097 bytes" below 10 KiB.
[[nodiscard]] std::string size_text(std::uint64_t bytes);

// "350 MiB/s"; "-" if no time has passed.
[[nodiscard]] std::string rate_text(std::uint64_t bytes, double seconds);

// "3.2 ms", "1.24 s".
[[nodiscard]] std::string duration_text(double seconds);

// counted(1, "capability", "capabilities") is "1 capability"; 0 and 2 give "capabilities".
[[nodiscard]] std::string counted(std::uint64_t count, std::string_view one, std::string_view more);

// 11408 as "11,408".
[[nodiscard]] std::string count_text(std::uint64_t count);

// A bitmap of page sizes: "4 KiB, 2 MiB, 1 GiB". Abbreviates the list if all powers of two from some size on are
// present.
[[nodiscard]] std::string page_sizes_text(std::uint64_t bitmap);

}  // namespace postern::tool
