// SPDX-License-Identifier: Apache-2.0
// failure_with(): an error that also has the errors of what was tried before.
#pragma once

#include <iterator>
#include <postern/result.hpp>
#include <utility>
#include <vector>

namespace postern {

// The error, with more causes before its own.
[[nodiscard]] inline tl::unexpected<Error> failure_with(std::vector<Error> causes, const Error& error) {
  Error::Details details = error.details();
  details.causes.insert(details.causes.begin(), std::make_move_iterator(causes.begin()),
                        std::make_move_iterator(causes.end()));
  return failure(std::move(details));
}

}  // namespace postern
