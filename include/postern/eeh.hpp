// SPDX-License-Identifier: Apache-2.0
// Eeh: POWER's Enhanced Error Handling: a device that misbehaved is frozen, looked at, reset, and let go again.
#pragma once

#include <postern/export.hpp>
#include <postern/result.hpp>
#include <string_view>

namespace postern {

// What a container of the spapr backend can do where the platform has it (Container::eeh()). It acts on the PE
// (partitionable endpoint) of every group in the container. Kernel: VFIO_EEH_PE_OP. Errors of each: EIO (the firmware
// refused), ENODEV (the platform has no EEH after all), those of the ioctl. Thread rules: those of the container.
class POSTERN_API Eeh {
 public:
  enum class State { normal = 0, reset = 1, stopped = 2, dma_stopped = 4, unavailable = 5 };
  enum class Reset { hot, fundamental };

  virtual ~Eeh() = default;

  [[nodiscard]] virtual Result<State> state() = 0;
  [[nodiscard]] virtual Result<void> enable() = 0;
  [[nodiscard]] virtual Result<void> disable() = 0;
  // A frozen PE answers its registers again, or may do DMA again.
  [[nodiscard]] virtual Result<void> unfreeze_io() = 0;
  [[nodiscard]] virtual Result<void> unfreeze_dma() = 0;
  // Asserts the reset and takes it away again. Takes seconds.
  [[nodiscard]] virtual Result<void> reset(Reset kind) = 0;
  // Restores what a reset took from the bridges above the device.
  [[nodiscard]] virtual Result<void> configure() = 0;

 protected:
  Eeh() = default;
  Eeh(const Eeh&) = default;
  Eeh& operator=(const Eeh&) = default;
};

[[nodiscard]] constexpr std::string_view to_string(Eeh::State state) noexcept {
  switch (state) {
    case Eeh::State::normal:
      return "normal";
    case Eeh::State::reset:
      return "in reset";
    case Eeh::State::stopped:
      return "stopped";
    case Eeh::State::dma_stopped:
      return "DMA stopped";
    case Eeh::State::unavailable:
      return "unavailable";
  }
  return "unknown";
}

}  // namespace postern
