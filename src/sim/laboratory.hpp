// SPDX-License-Identifier: Apache-2.0
// Laboratory: what the tests of drivers do to a simulated machine and no kernel can be asked for.
#pragma once

#include <functional>
#include <memory>
#include <postern-sim/kernel.hpp>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

class Laboratory {
 public:
  // Puts hardware of the test's own around a function's, which nobody has open: a device that lies. The new one says
  // that it is the same device. False: there is no such function.
  using Wrap = std::function<std::unique_ptr<Hardware>(std::unique_ptr<Hardware> honest)>;
  static bool wrap(Kernel& kernel, PciAddress address, const Wrap& wrap);
};

}  // namespace postern::sim
