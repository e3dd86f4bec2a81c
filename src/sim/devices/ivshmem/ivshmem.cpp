// SPDX-License-Identifier: Apache-2.0
// Ivshmem: its BARs are plain memory.
#include "sim/devices/ivshmem/ivshmem.hpp"

#include <algorithm>

namespace postern::sim {
namespace {

class Ivshmem final : public Hardware {
 public:
  [[nodiscard]] const HardwareInfo& info() const override { return info_; }
  void connect(Slot& /*slot*/, const Bars& bars) override { registers_ = bars[0]; }
  void reset() override { std::fill(registers_.begin(), registers_.end(), std::byte{0}); }
  [[nodiscard]] bool poll() override { return false; }

 private:
  HardwareInfo info_{.vendor = 0x1af4,
                     .device = 0x1110,
                     .class_code = 0x050000,
                     .revision = 1,
                     .bars = {{{.size = 256, .kind = Bar::Kind::memory32}, {}, {.size = 1 << 20}}},
                     .has_intx = false,
                     .is_express = false,
                     .has_flr = false};
  std::span<std::byte> registers_;
};

}  // namespace

std::unique_ptr<Hardware> make_ivshmem() { return std::make_unique<Ivshmem>(); }

}  // namespace postern::sim
