// SPDX-License-Identifier: Apache-2.0
// Typed ioctls: each request knows its uAPI symbol and the one type of argument it takes.
#pragma once

#include <cstdint>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

// A request whose argument is a pointer to `Argument`.
template <typename Argument>
struct Ioctl {
  unsigned long number;
  std::string_view symbol;

  [[nodiscard]] int operator()(Kernel& kernel, int fd, Argument& argument) const {
    // Some arguments are only read by the kernel, and const here; ioctl(2) has one prototype for all.
    return kernel.ioctl(fd, number, const_cast<void*>(static_cast<const void*>(&argument)));
  }
};

// A request whose argument is a number itself, or nothing.
struct IoctlByValue {
  unsigned long number;
  std::string_view symbol;

  [[nodiscard]] int operator()(Kernel& kernel, int fd, unsigned long value = 0) const {
    return kernel.ioctl(fd, number,
                        reinterpret_cast<void*>(value));  // NOLINT(performance-no-int-to-ptr): ioctl(2) has it so
  }
};

// A request of the uAPI and its name in one: inline constexpr Ioctl<T> name POSTERN_IOCTL(VFIO_SYMBOL).
#define POSTERN_IOCTL(request) \
  { request, #request }

// The failure of a call that gave `result`, a negated errno.
struct CallFailed {
  int result = 0;
  std::string object;
  std::string reason = {};
  std::string remedy = {};
  std::vector<Error> causes = {};
};
[[nodiscard]] inline tl::unexpected<Error> call_failure(std::string_view symbol, CallFailed what) {
  return failure({.code = -what.result,
                  .operation = std::string(symbol),
                  .object = std::move(what.object),
                  .reason = std::move(what.reason),
                  .remedy = std::move(what.remedy),
                  .causes = std::move(what.causes)});
}
// What the library refuses by itself: before it asks the kernel, or because of what a call that did not fail answered.
[[nodiscard]] inline tl::unexpected<Error> refusal(CallFailed what) { return call_failure("", std::move(what)); }

}  // namespace postern
