// SPDX-License-Identifier: Apache-2.0
// Logging: where the library says what it can return to nobody, such as a destructor's failure. Silent unless asked.
#pragma once

#include <postern/error.hpp>

namespace postern {

using LogHandler = void (*)(const Error& error) noexcept;

// Sets the one handler of the process; null turns it off (the default). It may be called from any thread.
void set_log_handler(LogHandler handler) noexcept;

}  // namespace postern
