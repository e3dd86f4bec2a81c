// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value, or the Error that took its place. Spelled like std::expected, so that it can become one. The one
// exception that this library throws is std::bad_alloc: then what was asked for is not done, as after an error, and may
// be asked for again. Destructors and what is noexcept throw nothing.
#pragma once

#include <postern/error.hpp>
#include <tl/expected.hpp>
#include <utility>

namespace postern {

template <typename T>
using Result = tl::expected<T, Error>;

// Thread rules of a Result: those of its value, and of Error.

// A failure, ready to be returned from any function that gives a Result.
[[nodiscard]] inline tl::unexpected<Error> failure(Error error) { return tl::unexpected<Error>(std::move(error)); }
[[nodiscard]] inline tl::unexpected<Error> failure(Error::Details details) {
  return tl::unexpected<Error>(Error(std::move(details)));
}

// Hands the error of one Result on as the failure of another.
template <typename T>
[[nodiscard]] tl::unexpected<Error> failure_of(Result<T>& result) {
  return tl::unexpected<Error>(std::move(result).error());
}

}  // namespace postern
