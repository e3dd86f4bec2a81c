// SPDX-License-Identifier: Apache-2.0
// Formats errors as text and as JSON, and prints what the library logs.
#include "text/errors.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <exception>
#include <mutex>
#include <postern/log.hpp>
#include <utility>

#include "text/remedies.hpp"

namespace postern::tool {
namespace {

std::atomic<std::size_t> logged{0};

// The argument of --host, quoted for a shell; empty for this host. Set before anything is printed.
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
int remark_collectors = 0;

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
  if (remark_collectors == 0) return fmt::print(stderr, "postern: {}\n", remark.text);
  kept_remarks.push_back(std::move(remark));
}

void show_logged(LogKind kind, const Error& error) noexcept {
  if (kind == LogKind::tear_down) ++logged;
  try {
    const std::string text = fmt::format("{}: {}", kind_text(kind), error_line(error));
    if (kind != LogKind::tear_down)
      return keep_or_print({.text = text, .json = {{"kind", kind_text(kind)}, {"error", error_json(error)}}});
    put(stderr, {}, fmt::format("postern: {}\n", text));
  } catch (const std::exception&) {
    // Out of memory: the error is counted, which is enough.
  }
}

}  // namespace

std::string reason_line(const Error& error) { return printable(error.explanation()); }
std::string error_line(const Error& error) { return printable(error.summary()); }

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
    if (words.find("--help") != std::string_view::npos || words.find("--host ") != std::string_view::npos) continue;
    binds = binds || words.starts_with("\"postern bind ");
    text.insert(end, option);
  }
  // A binding there ends with the run.
  if (binds) {
    text +=
        "; a simulated host starts fresh in each run: to have it bound, describe the function with \"driver\": "
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
  if (!error.remedies().empty()) text += remedy_text(words_of(error.remedies()), terminal, indent);
  std::vector<std::string> added;  // several alternatives often fail for the same cause
  for (const Error& cause : error.causes()) {
    const std::string words = std::string(indent, ' ') + "- " + fold(terminal, error_line(cause), indent + 2) + "\n" +
                              error_details(cause, terminal, indent + 2);
    if (std::find(added.begin(), added.end(), words) != added.end()) continue;
    text += words;
    added.push_back(words);
  }
  return text;
}

Json error_json(const Error& error) {
  Json remedies = Json::array();
  for (const Remedy& remedy : error.remedies()) {
    remedies.push_back(
        {{"code", to_string(remedy.code)}, {"arguments", remedy.arguments}, {"text", for_host(words_of(remedy))}});
  }
  Json causes = Json::array();
  for (const Error& cause : error.causes()) causes.push_back(error_json(cause));
  return {{"kind", to_string(error.kind())},
          {"operation", error.operation()},
          {"object", error.object()},
          {"errno", errno_name(error.code())},
          {"code", error.code()},
          {"reason", error.reason_text()},
          {"remedy", for_host(words_of(error.remedies()))},
          {"remedies", std::move(remedies)},
          {"causes", std::move(causes)}};
}

namespace {

// With this many spaces a level; -1: on one line.
std::string dumped_text(const Json& document, int indent) {
  const std::string dumped = document.dump(indent, ' ', false, Json::error_handler_t::replace);
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

}  // namespace

std::string json_text(const Json& document) { return dumped_text(document, 2); }
std::string json_line(const Json& document) { return dumped_text(document, -1); }

void show_logged_errors() { set_log_handler(show_logged); }
std::size_t logged_errors() noexcept { return logged; }

RemarkCollector::RemarkCollector() noexcept {
  const std::lock_guard lock(remarks_mutex);
  ++remark_collectors;
}
RemarkCollector::~RemarkCollector() {
  const std::lock_guard lock(remarks_mutex);
  if (--remark_collectors == 0) kept_remarks.clear();
}
std::vector<Remark> RemarkCollector::take() {
  const std::lock_guard lock(remarks_mutex);
  return std::exchange(kept_remarks, {});
}

}  // namespace postern::tool
