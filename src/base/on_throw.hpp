// SPDX-License-Identifier: Apache-2.0
// OnThrow: undoes a system call if memory runs out after it.
#pragma once

#include <exception>
#include <utility>

namespace postern {

// Calls the function if its scope is left by an exception, which is always std::bad_alloc here. The function must not
// throw.
template <typename Act>
class OnThrow {
 public:
  explicit OnThrow(Act act) : act_(std::move(act)) {}
  ~OnThrow() {
    if (std::uncaught_exceptions() > before_) act_();
  }
  OnThrow(const OnThrow&) = delete;
  OnThrow& operator=(const OnThrow&) = delete;

 private:
  Act act_;
  int before_ = std::uncaught_exceptions();
};

}  // namespace postern
