// SPDX-License-Identifier: Apache-2.0
// Errors as the tool shows them.
#include "text/errors.hpp"

#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <postern/log.hpp>

namespace postern::tool {
namespace {

std::atomic<std::size_t> logged{0};

std::string reason_of(const Error& error) {
  if (!error.reason().empty()) return error.reason();
  return error.code() != 0 ? std::strerror(error.code()) : "failed";
}

void show_logged(const Error& error) noexcept {
  ++logged;
  try {
    put(stderr, {}, fmt::format("postern: while cleaning up: {}\n", error_line(error)));
  } catch (const std::exception&) {
    // Out of memory: it is counted, and that is what decides.
  }
}

}  // namespace

std::string reason_line(const Error& error) {
  std::string text = reason_of(error);
  if (error.code() != 0) {
    text += error.operation().empty() ? " (" : fmt::format(" ({}: ", error.operation());
    text += errno_name(error.code()) + ")";
  }
  return printable(text);
}

std::string error_line(const Error& error) {
  return error.object().empty() ? reason_line(error) : printable(error.object()) + ": " + reason_line(error);
}

std::string remedy_text(std::string_view remedy, const Terminal& terminal, std::size_t indent) {
  constexpr std::string_view label = "remedy: ";
  return std::string(indent, ' ') + paint(terminal, Style::heading, label) +
         fold(terminal, remedy, indent + label.size()) + "\n";
}

std::string error_details(const Error& error, const Terminal& terminal, std::size_t indent) {
  std::string text;
  if (!error.remedy().empty()) text += remedy_text(error.remedy(), terminal, indent);
  for (const Error& cause : error.causes()) {
    text += std::string(indent, ' ') + "- " + fold(terminal, error_line(cause), indent + 2) + "\n";
    text += error_details(cause, terminal, indent + 2);
  }
  return text;
}

Json error_json(const Error& error) {
  Json causes = Json::array();
  for (const Error& cause : error.causes()) causes.push_back(error_json(cause));
  return {{"operation", error.operation()}, {"object", error.object()},   {"errno", errno_name(error.code())},
          {"code", error.code()},           {"reason", reason_of(error)}, {"remedy", error.remedy()},
          {"causes", std::move(causes)}};
}

std::string json_text(const Json& document) {
  const std::string dumped = document.dump(2, ' ', false, Json::error_handler_t::replace);
  std::string text;
  for (std::size_t at = 0; at < dumped.size(); ++at) {
    const auto byte = static_cast<unsigned char>(dumped[at]);
    const auto next = static_cast<unsigned char>(at + 1 < dumped.size() ? dumped[at + 1] : 0);
    if (byte == 0x7f) {
      text += "\\u007f";
    } else if (byte == 0xc2 && next < 0xa0) {  // of two bytes: U+0080 to U+009F
      text += fmt::format("\\u{:04x}", next);
      ++at;
    } else {
      text += dumped[at];
    }
  }
  return text + "\n";
}

void show_logged_errors() { set_log_handler(show_logged); }
std::size_t logged_errors() noexcept { return logged; }

}  // namespace postern::tool
