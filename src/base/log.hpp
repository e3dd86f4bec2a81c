// SPDX-License-Identifier: Apache-2.0
// Where destructors take their failures.
#pragma once

#include <postern/result.hpp>

namespace postern {

void log(const Error& error) noexcept;

// For destructors: the failure is logged, since nobody can be given it.
template <typename T>
void log_failure(const Result<T>& result) noexcept {
  if (!result) log(result.error());
}

}  // namespace postern
