// SPDX-License-Identifier: Apache-2.0
// Where destructors take their failures.
#pragma once

#include <postern/log.hpp>
#include <postern/result.hpp>

namespace postern {

void log(LogKind kind, const Error& error) noexcept;

// For destructors: the failure is logged, since nobody can be given it.
template <typename T>
void log_failure(const Result<T>& result, LogKind kind = LogKind::tear_down) noexcept {
  if (!result) log(kind, result.error());
}

}  // namespace postern
