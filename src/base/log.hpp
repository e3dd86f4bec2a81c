// SPDX-License-Identifier: Apache-2.0
// Where destructors take their failures.
#pragma once

#include <new>
#include <postern/log.hpp>
#include <postern/result.hpp>

namespace postern {

// For destructors: the failure is logged, since nobody can be given it.
template <typename T>
void log_failure(const Result<T>& result, LogKind kind = LogKind::tear_down) noexcept {
  if (!result) log(kind, result.error());
}

// The same of something that is done now. Where memory runs out for the words of a failure, it is dropped.
template <typename Act>
void log_failure_of(Act&& act, LogKind kind = LogKind::tear_down) noexcept {
  try {
    log_failure(act(), kind);
  } catch (const std::bad_alloc&) {
  }
}

}  // namespace postern
