// SPDX-License-Identifier: Apache-2.0
// Formats lists and file modes for errors. See also format.hpp.
#pragma once

#include <sys/types.h>

#include <functional>
#include <postern/format.hpp>
#include <postern/iova.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern {

// A text that is made only if an error needs it: to format one costs more than most checks.
using LazyText = std::function<std::string()>;

[[nodiscard]] std::string list_text(std::span<const std::string> words);  // "a, b, c"; "none" if empty
[[nodiscard]] std::string mode_text(mode_t mode);                         // "crw-rw----"
[[nodiscard]] std::string inverted_text(IovaRange range);                 // that it ends before it begins
[[nodiscard]] std::string length_text(IovaRange range);                   // how long it is: that last is in it
[[nodiscard]] std::string access_fault(Access access);                    // that it is no access
[[nodiscard]] std::string trimmed(std::string text);                      // without trailing white space

}  // namespace postern
