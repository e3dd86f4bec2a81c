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

/// A LogHandler that is given a pointer of the program's own.
using LogHandlerWithContext = void (*)(void* context, LogKind kind, const Error& error) noexcept;

/// Sets the process's log handler, which is called with `context`. Calls of a handler are made one after the other;
/// when this function or the one above returns, no other thread is in the handler that was set before, so that its
/// context may be destroyed. Null turns logging off. Thread-safe; may be called in a handler, but not with a mutex
/// locked that a handler locks.
POSTERN_API void set_log_handler(LogHandlerWithContext handler, void* context) noexcept;

/// Passes an error to the handler. For drivers, whose destructors have errors of their own. Thread-safe.
POSTERN_API void log(LogKind kind, const Error& error) noexcept;

}  // namespace postern
