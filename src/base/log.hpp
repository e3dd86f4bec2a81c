// SPDX-License-Identifier: Apache-2.0
// log_failure(): logs errors that destructors cannot return.
#pragma once

#include <new>
#include <postern/log.hpp>
#include <postern/result.hpp>

namespace postern {

// For destructors: logs the failure, which cannot be returned.
template <typename T>
void log_failure(const Result<T>& result, LogKind kind = LogKind::tear_down) noexcept {
  if (!result) log(kind, result.error());
}

// The same for a function that is called here. Drops the failure if memory runs out.
template <typename Act>
void log_failure_of(Act&& act, LogKind kind = LogKind::tear_down) noexcept {
  try {
    log_failure(act(), kind);
  } catch (const std::bad_alloc&) {
  }
}

}  // namespace postern
