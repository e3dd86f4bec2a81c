// SPDX-License-Identifier: Apache-2.0
// Errors as the tool shows them.
#include "text/errors.hpp"

#include <fmt/format.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <exception>
#include <mutex>
#include <postern/log.hpp>
#include <utility>

namespace postern::tool {
namespace {

std::atomic<std::size_t> logged{0};

std::mutex remarks_mutex;
std::vector<Remark> kept_remarks;
int remarks_keepers = 0;

std::string_view kind_text(LogKind kind) {
  switch (kind) {
    case LogKind::device:
      return "device";
    case LogKind::remark:
      return "remark";
    case LogKind::tear_down:
      break;
  }
  return "while cleaning up";
}

void keep_or_print(Remark remark) {
  const std::lock_guard lock(remarks_mutex);
  if (remarks_keepers == 0) return fmt::print(stderr, "postern: {}\n", remark.text);
  kept_remarks.push_back(std::move(remark));
}

std::string reason_of(const Error& error) {
  if (!error.reason().empty()) return error.reason();
  return error.code() != 0 ? std::strerror(error.code()) : "failed";
}

void show_logged(LogKind kind, const Error& error) noexcept {
  if (kind == LogKind::tear_down) ++logged;
  try {
    const std::string text = fmt::format("{}: {}", kind_text(kind), error_line(error));
    if (kind != LogKind::tear_down)
      return keep_or_print({.text = text, .json = {{"kind", kind_text(kind)}, {"error", error_json(error)}}});
    fmt::print(stderr, "postern: {}\n", text);
  } catch (const std::exception&) {
    // Out of memory, or stderr is gone: it is counted, and that is what decides.
  }
}

}  // namespace

std::string reason_line(const Error& error) {
  std::string text = reason_of(error);
  if (error.code() == 0) return text;
  text += error.operation().empty() ? " (" : fmt::format(" ({}: ", error.operation());
  return text + errno_name(error.code()) + ")";
}

std::string error_line(const Error& error) {
  return error.object().empty() ? reason_line(error) : error.object() + ": " + reason_line(error);
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
  return document.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void show_logged_errors() { set_log_handler(show_logged); }
std::size_t logged_errors() noexcept { return logged; }

RemarksKept::RemarksKept() noexcept {
  const std::lock_guard lock(remarks_mutex);
  ++remarks_keepers;
}
RemarksKept::~RemarksKept() {
  const std::lock_guard lock(remarks_mutex);
  if (--remarks_keepers == 0) kept_remarks.clear();
}
std::vector<Remark> RemarksKept::take() {
  const std::lock_guard lock(remarks_mutex);
  return std::exchange(kept_remarks, {});
}

}  // namespace postern::tool
