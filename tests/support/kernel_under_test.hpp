// SPDX-License-Identifier: Apache-2.0
// The kernel that tests run on: the running one, unless the program chose another.
#pragma once

#include <postern/kernel.hpp>

namespace postern::test {

inline Kernel*& chosen_kernel() {
  static Kernel* kernel = &system_kernel();
  return kernel;
}
inline Kernel& kernel() { return *chosen_kernel(); }
inline bool is_real(const Kernel& kernel) { return &kernel == &system_kernel(); }

}  // namespace postern::test
