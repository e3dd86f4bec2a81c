// SPDX-License-Identifier: Apache-2.0
// SmallBars: BARs that are plain memory.
#include "sim/devices/small_bars/small_bars.hpp"

#include <algorithm>

namespace postern::sim {
namespace {

class SmallBars final : public Hardware {
 public:
  [[nodiscard]] const HardwareInfo& info() const override { return info_; }
  void connect(Slot& /*slot*/, const Bars& bars) override { bars_ = bars; }
  void reset() override {
    for (const auto bar : bars_) std::fill(bar.begin(), bar.end(), std::byte{0});
  }
  [[nodiscard]] bool poll() override { return false; }

 private:
  HardwareInfo info_{.vendor = 0x1234,
                     .device = 0x11ea,
                     .class_code = 0x00ff00,
                     .bars = {{{.size = 256, .kind = Bar::Kind::memory32, .shares_page = true},
                               {.size = 64, .kind = Bar::Kind::io},
                               {.size = 256, .kind = Bar::Kind::memory32}}},
                     .has_intx = false,
                     .is_express = false,
                     .has_flr = false};
  Bars bars_;
};

}  // namespace

std::unique_ptr<Hardware> make_small_bars() { return std::make_unique<SmallBars>(); }

}  // namespace postern::sim
