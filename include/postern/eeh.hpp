// SPDX-License-Identifier: Apache-2.0
// Eeh: POWER's Enhanced Error Handling: inspects, resets and unfreezes a device that was frozen after an error.
#pragma once

#include <postern/export.hpp>
#include <postern/result.hpp>
#include <string_view>

namespace postern {

/// EEH of a container of the spapr backend, if the platform supports it (Container::eeh()). Acts on the PE
/// (partitionable endpoint) of every group in the container. Kernel: VFIO_EEH_PE_OP. Errors of each function: EIO (the
/// firmware refused), ENODEV (the platform has no EEH after all), those of the ioctl. Thread safety: as the container.
class POSTERN_API Eeh {
 public:
  /// State of a PE (VFIO_EEH_PE_STATE_*).
  enum class State { normal = 0, reset = 1, stopped = 2, dma_stopped = 4, unavailable = 5 };
  /// Kind of reset.
  enum class Reset { hot, fundamental };

  virtual ~Eeh() = default;

  /// Reads the state. Errors also: EPROTO (unknown state).
  [[nodiscard]] virtual Result<State> state() = 0;
  [[nodiscard]] virtual Result<void> enable() = 0;        ///< enables EEH
  [[nodiscard]] virtual Result<void> disable() = 0;       ///< disables EEH
  [[nodiscard]] virtual Result<void> unfreeze_io() = 0;   ///< re-enables register access to a frozen PE
  [[nodiscard]] virtual Result<void> unfreeze_dma() = 0;  ///< re-enables DMA of a frozen PE
  /// Asserts and deasserts the reset. Takes seconds.
  [[nodiscard]] virtual Result<void> reset(Reset kind) = 0;
  /// Reconfigures the bridges above the device after a reset.
  [[nodiscard]] virtual Result<void> configure() = 0;

 protected:
  Eeh() = default;
  Eeh(const Eeh&) = default;
  Eeh& operator=(const Eeh&) = default;
};

/// Returns the state as text: "normal", "in reset", "stopped", "DMA stopped", "unavailable".
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
