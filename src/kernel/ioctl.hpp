// SPDX-License-Identifier: Apache-2.0
// Typed ioctls: each request has its uAPI symbol and the type of its argument.
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
    // Arguments that the kernel only reads are const here, but ioctl(2) has one prototype for all.
    return kernel.ioctl(fd, number, const_cast<void*>(static_cast<const void*>(&argument)));
  }
};

// A request whose argument is a number, or that has none.
struct IoctlByValue {
  unsigned long number;
  std::string_view symbol;

  [[nodiscard]] int operator()(Kernel& kernel, int fd, unsigned long value = 0) const {
    return kernel.ioctl(fd, number,
                        reinterpret_cast<void*>(value));  // NOLINT(performance-no-int-to-ptr): ioctl(2) has it so
  }
};

// Defines a uAPI request with its name: inline constexpr Ioctl<T> name POSTERN_IOCTL(VFIO_SYMBOL).
#define POSTERN_IOCTL(request) \
  { request, #request }

// The failure of a call that returned `result`, a negated errno.
struct CallFailed {
  int result = 0;
  ErrorKind kind = ErrorKind::other;  // `other`: derived from the errno
  std::string object = {};
  std::string reason = {};
  Remedies remedy = {};
  std::vector<Error> causes = {};
};
[[nodiscard, gnu::cold]] tl::unexpected<Error> call_failure(std::string_view symbol, CallFailed what);
// A refusal by the library: before a system call, or because of the result of a successful call.
[[nodiscard, gnu::cold]] tl::unexpected<Error> refusal(CallFailed what);

}  // namespace postern
