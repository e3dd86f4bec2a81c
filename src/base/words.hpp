// SPDX-License-Identifier: Apache-2.0
// Lists and file modes as errors spell them, beside what format.hpp has.
#pragma once

#include <sys/types.h>

#include <postern/format.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern {

[[nodiscard]] std::string list_text(std::span<const std::string> words);  // "a, b, c"; "none" where empty
[[nodiscard]] std::string mode_text(mode_t mode);                         // "crw-rw----"
[[nodiscard]] std::string trimmed(std::string text);                      // without white space at its end

}  // namespace postern
