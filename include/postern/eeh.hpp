// SPDX-License-Identifier: Apache-2.0
// Eeh: POWER's Enhanced Error Handling: inspects, resets and unfreezes a device that was frozen after an error.
#pragma once

#include <cstdint>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string_view>

namespace postern {

class AddressSpace;

/// EEH of a container of the spapr backend, if the platform supports it (container.get<Eeh>()). Acts on the PE
/// (partitionable endpoint) of every group in the container. Kernel: VFIO_EEH_PE_OP. Errors of each function: EIO (the
/// firmware refused), ENODEV (the platform has no EEH after all), those of the ioctl. Thread safety: as the container.
class POSTERN_API Eeh final {
 public:
  static constexpr std::string_view capability = "EEH";  ///< for Container::get()

  /// State of a PE (VFIO_EEH_PE_STATE_*).
  enum class State { normal = 0, reset = 1, stopped = 2, dma_stopped = 4, unavailable = 5 };
  /// Kind of reset.
  enum class Reset { hot, fundamental };

  /// Reads the state. Errors also: EPROTO (unknown state).
  [[nodiscard]] Result<State> state();
  [[nodiscard]] Result<void> enable();        ///< enables EEH
  [[nodiscard]] Result<void> disable();       ///< disables EEH
  [[nodiscard]] Result<void> unfreeze_io();   ///< re-enables register access to a frozen PE
  [[nodiscard]] Result<void> unfreeze_dma();  ///< re-enables DMA of a frozen PE
  /// Asserts and deasserts the reset. Takes seconds.
  [[nodiscard]] Result<void> reset(Reset kind);
  /// Reconfigures the bridges above the device after a reset.
  [[nodiscard]] Result<void> configure();

  /// For the library itself.
  Eeh(const Fd& container, AddressSpace& space) noexcept : container_(&container), space_(&space) {}

 private:
  [[nodiscard]] Result<int> call(std::uint32_t operation, std::string_view name);
  [[nodiscard]] Result<void> act(std::uint32_t operation, std::string_view name);

  const Fd* container_;
  AddressSpace* space_;
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
