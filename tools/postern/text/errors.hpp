// SPDX-License-Identifier: Apache-2.0
// Errors as the tool shows them: to people, reason first; to programs, as JSON.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <postern/error.hpp>
#include <string>
#include <vector>

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

// From now on each command of postern's in a remedy carries "--host HOST": it is for the host that was asked about.
void name_host(const std::string& host);
// A remedy as it is to be shown. remedy_text() and error_json() do it; for one that stands elsewhere.
[[nodiscard]] std::string for_host(std::string_view remedy);

// One JSON document with its line end. Bytes that are no UTF-8 (a device may name itself anything) become U+FFFD, and
// control characters are escaped, those too that JSON would let stand.
[[nodiscard]] std::string json_text(const Json& document);

// Shows what the library can give to nobody. A destructor's failure is printed, and counted. Remarks, and what devices
// did not do, are kept for whoever keeps them, and printed otherwise.
void show_logged_errors();
[[nodiscard]] std::size_t logged_errors() noexcept;

struct Remark {
  std::string text;
  Json json;  // {"kind", "error"}
};
// While it lives, remarks are kept for take().
class RemarksKept {
 public:
  RemarksKept() noexcept;
  ~RemarksKept();
  RemarksKept(const RemarksKept&) = delete;
  RemarksKept& operator=(const RemarksKept&) = delete;

  // Those since the last call, of all that live.
  [[nodiscard]] std::vector<Remark> take();
};

}  // namespace postern::tool
