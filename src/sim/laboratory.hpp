// SPDX-License-Identifier: Apache-2.0
// Laboratory: changes to a simulated machine for tests of drivers, which no kernel interface allows.
#pragma once

#include <functional>
#include <memory>
#include <postern-sim/kernel.hpp>

#include "sim/devices/hardware.hpp"

namespace postern::sim {

class Laboratory {
 public:
  // Wraps the hardware of a function, which must not be open, in the test's own, for example a device that lies. The
  // wrapper reports the same device. False: there is no such function.
  using Wrap = std::function<std::unique_ptr<Hardware>(std::unique_ptr<Hardware> honest)>;
  static bool wrap(Kernel& kernel, PciAddress address, const Wrap& wrap);
};

}  // namespace postern::sim
