// SPDX-License-Identifier: Apache-2.0
// Undoing by the way out of a scope: for what the kernel did before memory ran out.
#pragma once

#include <exception>
#include <utility>

namespace postern {

// Acts where its scope is left by an exception, which here is always std::bad_alloc. The act must not throw.
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
