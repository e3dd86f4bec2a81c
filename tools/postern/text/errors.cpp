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

// As a shell takes it; empty for this host. Set while the arguments are read, before anything is shown.
std::string& named_host() {
  static std::string host;
  return host;
}

std::string shell_word(const std::string& word) {
  constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.,:/+";
  if (word.find_first_not_of(plain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

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
    put(stderr, {}, fmt::format("postern: {}\n", text));
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

void name_host(const std::string& host) { named_host() = shell_word(host); }

std::string for_host(std::string_view remedy) {
  std::string text(remedy);
  if (named_host().empty()) return text;
  const std::string option = " --host " + named_host();
  constexpr std::string_view command = "\"postern ";
  bool binds = false;
  for (std::size_t at = text.find(command); at != std::string::npos; at = text.find(command, at + 1)) {
    const std::size_t end = text.find('"', at + 1);
    if (end == std::string::npos) break;
    const std::string_view words = std::string_view(text).substr(at, end - at);
    if (words.find("--help") != std::string_view::npos) continue;
    binds = binds || words.starts_with("\"postern bind ");
    text.insert(end, option);
  }
  // Bound there is bound for that run alone.
  if (binds) {
    text +=
        "; a simulated host begins anew in each run: to find it bound, describe the function with \"driver\": "
        "\"vfio-pci\"";
  }
  return text;
}

std::string remedy_text(std::string_view remedy, const Terminal& terminal, std::size_t indent) {
  constexpr std::string_view label = "remedy: ";
  return std::string(indent, ' ') + paint(terminal, Style::heading, label) +
         fold(terminal, for_host(remedy), indent + label.size()) + "\n";
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
          {"code", error.code()},           {"reason", reason_of(error)}, {"remedy", for_host(error.remedy())},
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
