// SPDX-License-Identifier: Apache-2.0
// Error in words, and the log for errors that nobody can be given.
#include <postern/error.hpp>
#include <postern/log.hpp>

#include <atomic>
#include <cstring>

#include "base/log.hpp"

namespace postern {
namespace {

std::atomic<LogHandler> log_handler{nullptr};

void append(std::string& text, std::string_view separator, std::string_view part) {
  if (part.empty()) return;
  if (!text.empty()) text += separator;
  text += part;
}

}  // namespace

Error::Error(Details details) : details_(std::make_unique<Details>(std::move(details))) {}
Error::~Error() = default;
Error::Error(const Error& other) : details_(std::make_unique<Details>(*other.details_)) {}
Error& Error::operator=(const Error& other) { return *this = Error(other); }
Error::Error(Error&&) noexcept = default;
Error& Error::operator=(Error&&) noexcept = default;

std::string Error::message() const {
  std::string text = object();
  append(text, ": ", refused() ? std::string_view("refused") : operation());
  append(text, ": ", errno_name(code()));
  append(text, ": ", reason().empty() ? std::strerror(code()) : reason());
  append(text, "; ", remedy());
  for (const Error& cause : causes()) text += " [" + cause.message() + "]";
  return text;
}

std::string errno_name(int code) {
  const char* name = ::strerrorname_np(code);
  return name != nullptr ? name : std::to_string(code);
}

void set_log_handler(LogHandler handler) noexcept { log_handler = handler; }

void log(LogKind kind, const Error& error) noexcept {
  if (LogHandler handler = log_handler) handler(kind, error);
}

}  // namespace postern
