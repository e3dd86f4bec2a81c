// SPDX-License-Identifier: Apache-2.0
// Result<T>: a value or an Error. Has the interface of std::expected, so that it can be replaced by it. The only
// exception this library throws is std::bad_alloc: the operation then had no effect, as after an error, and can be
// retried. Destructors and noexcept functions throw nothing.
#pragma once

#include <cstdint>
#include <postern/error.hpp>
#include <string>
#include <tl/expected.hpp>
#include <type_traits>
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

/// The error of a call that returned a negated errno, as the functions of Kernel do: of `operation`, "open", applied to
/// `object`, "/dev/vfio/4".
[[nodiscard]] inline tl::unexpected<Error> failure_from(std::intptr_t negated_errno, std::string operation,
                                                        std::string object = {}) {
  return failure(Error::Details{
      .code = static_cast<int>(negated_errno), .operation = std::move(operation), .object = std::move(object)});
}

/// Moves the error out of one Result, to be returned as another.
template <typename T>
[[nodiscard]] tl::unexpected<Error> failure_of(Result<T>& result) {
  return tl::unexpected<Error>(std::move(result).error());
}

/// Moves the value out of a Result that holds one. For POSTERN_TRY.
template <typename T>
T value_of(Result<T>& result) {
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

/// Evaluates to the value of a Result. If it holds an error, returns that error from the enclosing function instead,
/// which must return a Result:
///
///     auto function = POSTERN_TRY(find_pci_function(kernel, address));
///     POSTERN_TRY(device.reset());
///
/// One may be part of the argument of another. A statement expression, which GCC and Clang have. Do not use it within
/// the braces of an aggregate behind members that have a destructor: GCC does not destroy those when it returns.
#define POSTERN_TRY(...) POSTERN_TRY_NUMBERED(__COUNTER__, __VA_ARGS__)
#define POSTERN_TRY_NUMBERED(number, ...) POSTERN_TRY_NAMED(number, __VA_ARGS__)
#define POSTERN_TRY_NAMED(number, ...)                                                   \
  __extension__({                                                                        \
    auto&& postern_result_##number = (__VA_ARGS__);                                      \
    if (!postern_result_##number) return ::postern::failure_of(postern_result_##number); \
    ::postern::value_of(postern_result_##number);                                        \
  })

}  // namespace postern
