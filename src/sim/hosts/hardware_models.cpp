// SPDX-License-Identifier: Apache-2.0
// make_hardware(): creates the hardware of each model of functions. That of a port is here.
#include "sim/hosts/hardware_models.hpp"

#include "sim/devices/edu/edu.hpp"
#include "sim/devices/ivshmem/ivshmem.hpp"
#include "sim/devices/nvme/nvme.hpp"
#include "sim/devices/small_bars/small_bars.hpp"

namespace postern::sim {
namespace {

// A port: it has only config space.
class Bridge final : public Hardware {
 public:
  explicit Bridge(Platform platform) {
    if (platform != Platform::powernv) return;
    info_.vendor = 0x1014;
    info_.device = 0x04c1;
  }
  [[nodiscard]] const HardwareInfo& info() const override { return info_; }
  void connect(Slot& /*slot*/, const Bars& /*bars*/) override {}
  void reset() override {}
  [[nodiscard]] bool poll() override { return false; }

 private:
  HardwareInfo info_{.vendor = 0x1b36, .device = 0x000c, .class_code = 0x060400, .has_intx = false, .has_flr = false};
};

}  // namespace

std::unique_ptr<Hardware> make_hardware(const HostFunction& described, Platform platform) {
  using Model = HostFunction::Model;
  switch (described.model) {
    case Model::nvme:
      return make_nvme(described.bytes, described.serial.c_str());
    case Model::edu:
      return make_edu();
    case Model::migratable_edu:
      return make_migratable_edu();
    case Model::small_bars:
      return make_small_bars();
    case Model::ivshmem:
      return make_ivshmem();
    case Model::bridge:
      break;
  }
  return std::make_unique<Bridge>(platform);
}

}  // namespace postern::sim
