// SPDX-License-Identifier: Apache-2.0
// Edu: the hardware of make_edu(): its registers are in registers.cpp, its functions in edu.cpp.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "sim/devices/hardware.hpp"
#include "sim/devices/registers.hpp"

namespace postern::sim {

class Edu final : public Hardware, private Migratable {
 public:
  explicit Edu(const HardwareInfo& info) : info_(info) {}

  [[nodiscard]] const HardwareInfo& info() const override { return info_; }
  void connect(Slot& slot, const Bars& bars) override;
  void reset() override;
  [[nodiscard]] bool poll() override;
  [[nodiscard]] bool write(std::size_t bar, std::uint64_t offset, std::span<const std::byte> bytes) override;
  [[nodiscard]] Migratable* migratable() override { return this; }

 private:
  static constexpr std::size_t buffer_size = 4096;

  // Its whole state; zero after power-on.
  struct State {
    std::uint32_t liveness = 0;
    std::uint32_t factorial = 0;
    std::uint32_t status = 0;
    std::uint32_t interrupt_status = 0;
    std::uint64_t source = 0;
    std::uint64_t destination = 0;
    std::uint64_t count = 0;
    std::uint64_t command = 0;
    std::array<std::byte, buffer_size> buffer{};
  };

  static_assert(std::has_unique_object_representations_v<State>, "it is saved as bytes");

  void set_activity(Activity activity) override;
  [[nodiscard]] std::vector<std::byte> save() const override;
  [[nodiscard]] bool load(std::span<const std::byte> state) override;

  // Registers: registers.cpp.
  void set(std::size_t offset, std::uint64_t value);
  [[nodiscard]] std::uint32_t value_at(std::size_t offset) const;
  [[nodiscard]] bool look();
  void show();
  void show_all();

  // Functions: edu.cpp.
  [[nodiscard]] bool is_copying() const;
  [[nodiscard]] bool work();
  void compute_factorial();
  void copy();
  void raise(std::uint32_t bits);
  void acknowledge(std::uint32_t bits);

  HardwareInfo info_;
  Slot* slot_ = nullptr;
  std::span<std::byte> bar_;
  Registers registers_;
  State state_;
  Activity activity_ = Activity::full;
  std::array<std::uint32_t, 12> shown_{};  // the last known value of each register with a state
};

}  // namespace postern::sim
