// SPDX-License-Identifier: Apache-2.0
// Logging: reports errors that cannot be returned to a caller, such as those of destructors. Off by default.
#pragma once

#include <cstdint>
#include <postern/error.hpp>
#include <postern/export.hpp>

namespace postern {

/// What a log entry is about.
enum class LogKind : std::uint8_t {
  tear_down,  ///< releasing or undoing something failed: it may be left behind
  remark,     ///< informational; the operation continues without it
  device,     ///< a device misbehaved while it was being stopped; it was cut off from memory anyway
};

/// Receives log entries. Must be callable from any thread.
using LogHandler = void (*)(LogKind kind, const Error& error) noexcept;

/// Sets the process's log handler. Null turns logging off, which is the default. Thread-safe.
POSTERN_API void set_log_handler(LogHandler handler) noexcept;

/// Passes an error to the handler. For drivers, whose destructors have errors of their own. Thread-safe.
POSTERN_API void log(LogKind kind, const Error& error) noexcept;

}  // namespace postern
