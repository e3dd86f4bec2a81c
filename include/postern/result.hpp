// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error. Has the interface of std::expected, so that it can be replaced by it. The only
// exception this library throws is std::bad_alloc: the operation then had no effect, as after an error, and can be
// retried. Destructors and noexcept functions throw nothing.
#pragma once

#include <postern/error.hpp>
#include <tl/expected.hpp>
#include <utility>

namespace postern {

/// A value or an Error. Thread safety: as the value and Error.
template <typename T>
using Result = tl::expected<T, Error>;

/// Wraps an error, to be returned from any function that returns a Result.
[[nodiscard]] inline tl::unexpected<Error> failure(Error error) { return tl::unexpected<Error>(std::move(error)); }
/// Wraps an error with these details.
[[nodiscard]] inline tl::unexpected<Error> failure(Error::Details details) {
  return tl::unexpected<Error>(Error(std::move(details)));
}

/// Moves the error out of one Result, to be returned as another.
template <typename T>
[[nodiscard]] tl::unexpected<Error> failure_of(Result<T>& result) {
  return tl::unexpected<Error>(std::move(result).error());
}

}  // namespace postern
