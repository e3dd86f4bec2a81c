// SPDX-License-Identifier: Apache-2.0
// Formats errors as text, with the reason first, and as JSON; prints what the library logs.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <postern/error.hpp>
#include <string>
#include <vector>

#include "text/terminal.hpp"

namespace postern::tool {

using Json = nlohmann::ordered_json;  // keeps the order of the keys

// "OBJECT: reason (OPERATION: ERRNO)", on one line.
[[nodiscard]] std::string error_line(const Error& error);

// The same without the object, if that is printed already: "reason (OPERATION: ERRNO)".
[[nodiscard]] std::string reason_line(const Error& error);

// The lines below it: the remedy, and the causes with their remedies, each with its indent and line end.
[[nodiscard]] std::string error_details(const Error& error, const Terminal& terminal, std::size_t indent);

// {"kind", "operation", "object", "errno", "code", "reason", "remedy", "remedies": [{"code", "arguments", "text"}],
// "causes"}, as docs/errors.md explains.
[[nodiscard]] Json error_json(const Error& error);

// "remedy: TEXT", folded to the terminal, with its line end. A single command is never folded, so that it can be
// copied.
[[nodiscard]] std::string remedy_text(std::string_view remedy, const Terminal& terminal, std::size_t indent);

// Adds "--host HOST" to each postern command in the remedies printed from now on.
void name_host(const std::string& host);
// Returns a remedy for the host of name_host(). remedy_text() and error_json() call it themselves.
[[nodiscard]] std::string for_host(std::string_view remedy);

// Returns a JSON document with its line end. Invalid UTF-8 (a device name may have any bytes) becomes U+FFFD, and all
// control characters are escaped, also those that JSON allows.
[[nodiscard]] std::string json_text(const Json& document);
// The same on one line, for documents that follow one another.
[[nodiscard]] std::string json_line(const Json& document);

// Handles the errors that the library can only log. A destructor's failure is printed and counted. Remarks and faults
// of devices are collected if a RemarkCollector exists, else printed.
void show_logged_errors();
[[nodiscard]] std::size_t logged_errors() noexcept;

struct Remark {
  std::string text;
  Json json;  // {"kind", "error"}
};
// Collects remarks for take() while it exists.
class RemarkCollector {
 public:
  RemarkCollector() noexcept;
  ~RemarkCollector();
  RemarkCollector(const RemarkCollector&) = delete;
  RemarkCollector& operator=(const RemarkCollector&) = delete;

  // Returns the remarks since the last call on any of these objects.
  [[nodiscard]] std::vector<Remark> take();
};

}  // namespace postern::tool
