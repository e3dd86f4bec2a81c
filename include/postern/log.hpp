// SPDX-License-Identifier: Apache-2.0
// Logging: where the library says what it can return to nobody, such as a destructor's failure. Silent unless asked.
#pragma once

#include <cstdint>
#include <postern/error.hpp>
#include <postern/export.hpp>

namespace postern {

enum class LogKind : std::uint8_t {
  tear_down,  // something could not be given back, or undone: it may be left behind
  remark,     // something worth knowing; all goes on without it
  device,     // a device did not do what it was told while it was stopped; it was kept from memory all the same
};

using LogHandler = void (*)(LogKind kind, const Error& error) noexcept;

// Sets the one handler of the process; null turns it off (the default). It may be called from any thread.
POSTERN_API void set_log_handler(LogHandler handler) noexcept;

// Gives the handler an error. For drivers, which have destructors of their own.
POSTERN_API void log(LogKind kind, const Error& error) noexcept;

}  // namespace postern
