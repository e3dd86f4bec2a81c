// SPDX-License-Identifier: Apache-2.0
// Sizes, lists and file modes as errors spell them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <postern/iova.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern {

[[nodiscard]] std::string size_text(std::uint64_t bytes);                  // "4 KiB", "16 GiB", "4097 bytes"
[[nodiscard]] std::string page_sizes_text(std::uint64_t bitmap);           // "4 KiB, 2 MiB, 1 GiB"
[[nodiscard]] std::string ranges_text(std::span<const IovaRange> ranges);  // "0x0-0xfff, 0x2000-0x2fff"
[[nodiscard]] std::string list_text(std::span<const std::string> words);   // "a, b, c"; "none" where empty
[[nodiscard]] std::string mode_text(mode_t mode);                          // "crw-rw----"
[[nodiscard]] std::string trimmed(std::string text);                       // without white space at its end

}  // namespace postern
