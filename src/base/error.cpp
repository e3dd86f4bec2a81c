// SPDX-License-Identifier: Apache-2.0
// Error: its texts, the kind of an errno, and the log for errors that cannot be returned.
#include <postern/error.hpp>
#include <postern/log.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <mutex>

#include "base/log.hpp"

namespace postern {
namespace {

// Held while the handler is called, so that whoever sets another knows that this one has ended. Recursive: a handler
// may log, and set another.
// NOLINTBEGIN(cppcoreguidelines-avoid-non-const-global-variables): of set_log_handler()
std::recursive_mutex log_mutex;
LogHandler log_handler = nullptr;  // the one or the other, or neither
LogHandlerWithContext log_handler_with_context = nullptr;
void* log_context = nullptr;
// NOLINTEND(cppcoreguidelines-avoid-non-const-global-variables)

void append(std::string& text, std::string_view separator, std::string_view part) {
  if (part.empty()) return;
  if (!text.empty()) text += separator;
  text += part;
}

// In the order of ErrorKind.
constexpr std::array<std::string_view, 22> kind_names = {"other",
                                                         "invalid_argument",
                                                         "out_of_range",
                                                         "not_found",
                                                         "already_exists",
                                                         "in_use",
                                                         "no_permission",
                                                         "unavailable",
                                                         "unsupported",
                                                         "not_bound",
                                                         "no_iommu",
                                                         "group_not_viable",
                                                         "interrupts_not_isolated",
                                                         "cannot_share",
                                                         "no_memory",
                                                         "locked_memory",
                                                         "limit_reached",
                                                         "closed",
                                                         "stale",
                                                         "no_answer",
                                                         "device_error",
                                                         "invalid_answer"};
static_assert(kind_names.size() == static_cast<std::size_t>(ErrorKind::invalid_answer) + 1);

// The kind of an errno if nothing more specific is known.
ErrorKind kind_of(int code) noexcept {
  switch (code) {
    case EINVAL:
    case EFAULT:
      return ErrorKind::invalid_argument;
    case ERANGE:
    case EOVERFLOW:
      return ErrorKind::out_of_range;
    case ENOENT:
    case ENODEV:
    case ENXIO:
    case ENOTDIR:
      return ErrorKind::not_found;
    case EEXIST:
    case EADDRINUSE:
      return ErrorKind::already_exists;
    case EBUSY:
    case EAGAIN:
      return ErrorKind::in_use;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorKind::no_permission;
    case EOPNOTSUPP:
    case ENOTTY:
    case ENOSYS:
      return ErrorKind::unsupported;
    case ENOMEM:
      return ErrorKind::no_memory;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case E2BIG:
      return ErrorKind::limit_reached;
    case EBADF:
    case ESHUTDOWN:
      return ErrorKind::closed;
    case ESTALE:
      return ErrorKind::stale;
    case ETIMEDOUT:
      return ErrorKind::no_answer;
    case EIO:
      return ErrorKind::device_error;
    case EPROTO:
      return ErrorKind::invalid_answer;
    default:
      return ErrorKind::other;
  }
}

}  // namespace

Error::Error(Details details) : details_(std::make_unique<Details>(std::move(details))) {
  constexpr int last_errno = 4095;
  if (details_->code < 0 && details_->code >= -last_errno) details_->code = -details_->code;
  if (details_->kind == ErrorKind::other) details_->kind = kind_of(details_->code);
}
Error::~Error() = default;
Error::Error(const Error& other) : details_(std::make_unique<Details>(*other.details_)) {}
Error& Error::operator=(const Error& other) { return *this = Error(other); }
Error::Error(Error&&) noexcept = default;
Error& Error::operator=(Error&&) noexcept = default;

std::string Error::reason_text() const {
  if (!reason().empty()) return reason();
  return code() != 0 ? std::strerror(code()) : "failed";
}

std::string Error::explanation() const {
  std::string text = reason_text();
  if (code() == 0) return text;
  text += " (";
  if (!refused()) text += operation() + ": ";
  return text + errno_name(code()) + ")";
}

std::string Error::summary() const { return object().empty() ? explanation() : object() + ": " + explanation(); }

std::string Error::message() const {
  std::string text = object();
  append(text, ": ", refused() ? std::string_view("refused") : operation());
  append(text, ": ", errno_name(code()));
  append(text, ": ", reason_text());
  append(text, "; ", remedy());
  // Several alternatives often fail for the same cause.
  std::vector<std::string> added;
  for (const Error& cause : causes()) {
    const std::string words = cause.message();
    if (std::find(added.begin(), added.end(), words) != added.end()) continue;
    text += " [" + words + "]";
    added.push_back(words);
  }
  return text;
}

std::string_view to_string(ErrorKind kind) noexcept {
  const auto at = static_cast<std::size_t>(kind);
  return at < kind_names.size() ? kind_names[at] : kind_names.front();
}

std::string errno_name(int code) {
  const char* name = ::strerrorname_np(code);
  return name != nullptr ? name : std::to_string(code);
}

void set_log_handler(LogHandler handler) noexcept {
  const std::lock_guard lock(log_mutex);
  log_handler = handler;
  log_handler_with_context = nullptr;
}

void set_log_handler(LogHandlerWithContext handler, void* context) noexcept {
  const std::lock_guard lock(log_mutex);
  log_handler = nullptr;
  log_handler_with_context = handler;
  log_context = context;
}

void log(LogKind kind, const Error& error) noexcept {
  const std::lock_guard lock(log_mutex);
  if (log_handler != nullptr) return log_handler(kind, error);
  if (log_handler_with_context != nullptr) log_handler_with_context(log_context, kind, error);
}

}  // namespace postern
