// SPDX-License-Identifier: Apache-2.0
// Errors as the tool shows them: to people, reason first; to programs, as JSON.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <postern/error.hpp>
#include <string>

#include "text/terminal.hpp"

namespace postern::tool {

using Json = nlohmann::ordered_json;  // keys stay in the order that they are written in

// "OBJECT: reason (OPERATION: ERRNO)", on one line.
[[nodiscard]] std::string error_line(const Error& error);

// The same without the object, for where that stands already: "reason (OPERATION: ERRNO)".
[[nodiscard]] std::string reason_line(const Error& error);

// What stands beneath it: the remedy, and the causes with theirs, each line with its indent and its line end.
[[nodiscard]] std::string error_details(const Error& error, const Terminal& terminal, std::size_t indent);

// {"operation", "object", "errno", "code", "reason", "remedy", "causes"}
[[nodiscard]] Json error_json(const Error& error);

// "remedy: TEXT", folded to the terminal, with its line end. A command on its own is never folded: it is there to be
// copied.
[[nodiscard]] std::string remedy_text(std::string_view remedy, const Terminal& terminal, std::size_t indent);

// One JSON document with its line end. Bytes that are no UTF-8 (a device may name itself anything) become U+FFFD, and
// control characters are escaped, those too that JSON would let stand.
[[nodiscard]] std::string json_text(const Json& document);

// Prints what the library can give to nobody, such as a destructor's failure, and counts it.
void show_logged_errors();
[[nodiscard]] std::size_t logged_errors() noexcept;

}  // namespace postern::tool
