// SPDX-License-Identifier: Apache-2.0
// Function: a PCI function of the simulated host: its config space, its BARs, its interrupts; and what vfio-pci keeps
// of it.
#pragma once

#include <linux/pci_regs.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <postern/pci_address.hpp>
#include <span>
#include <vector>

#include "sim/devices/hardware.hpp"
#include "sim/driver/device.hpp"
#include "sim/migration/variant.hpp"
#include "sim/pci/interrupts.hpp"

namespace postern::sim {

class Function final : public Device, private Slot {
 public:
  Function(PciAddress address, int group, std::unique_ptr<Hardware> hardware);
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  ~Function() override = default;

  [[nodiscard]] PciAddress address() const noexcept { return address_; }
  [[nodiscard]] const HardwareInfo& info() const { return hardware_->info(); }

  bool low_power = false;          // asked for, not there
  std::optional<Variant> variant;  // while it is open, and its own VFIO driver has it

  // It was opened by this process, or closed for the last time (vfio_pci_core_enable, vfio_pci_core_disable).
  void enable(Process& process);
  void disable();

  // Config space as VFIO shows it; what a write may change is the command register, and BARs, which lead nowhere.
  void read_config(std::uint64_t offset, std::span<std::byte> bytes) const;
  void write_config(std::uint64_t offset, std::span<const std::byte> bytes);

  // Bytes of it.
  [[nodiscard]] std::uint64_t config_size() const { return info().is_express ? 4096 : 256; }

  // How much memory its BARs take, and which it is: called once, before it is opened. The memory outlives the function.
  [[nodiscard]] std::uint64_t bars_length() const;
  void connect(std::span<std::byte> memory, std::uint64_t offset);
  // Where the memory of a BAR that it has begins in the machine's BarMemory.
  [[nodiscard]] std::uint64_t bar_offset(std::size_t index) const { return bar_offsets_[index]; }
  // One access of 1, 2, 4 or 8 aligned bytes, as VFIO makes them.
  void read_bar(std::size_t index, std::uint64_t offset, std::span<std::byte> bytes) const;
  void write_bar(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes);
  // Whether its memory BARs answer, by the command register; or its I/O BARs.
  [[nodiscard]] bool is_memory_on() const { return has_command(PCI_COMMAND_MEMORY); }
  [[nodiscard]] bool is_io_on() const { return has_command(PCI_COMMAND_IO); }
  // Where MSI-X's table is in BAR 0; empty where it has none.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> vector_table() const;

  [[nodiscard]] Interrupts& interrupts() noexcept { return interrupts_; }

  // Puts other hardware around its own, of the same kind.
  void wrap_hardware(const std::function<std::unique_ptr<Hardware>(std::unique_ptr<Hardware>)>& wrap);

  void reset();  // config space is saved and restored around it
  [[nodiscard]] bool poll();

 private:
  [[nodiscard]] bool dma_read(Iova iova, std::span<std::byte> bytes) override;
  [[nodiscard]] bool dma_write(Iova iova, std::span<const std::byte> bytes) override;
  void interrupt(std::uint32_t vector) override;
  [[nodiscard]] bool signals_messages() const override;
  void set_line(bool up) override;
  [[nodiscard]] Domain* reached() const noexcept { return physical ? physical.get() : domain.get(); }
  [[nodiscard]] bool has_command(std::uint16_t bit) const;
  [[nodiscard]] std::byte shown(std::uint64_t offset) const;
  [[nodiscard]] std::byte shown_bar(std::uint64_t offset) const;
  [[nodiscard]] std::byte writable(std::uint64_t offset) const;
  void make_config();

  PciAddress address_;
  std::unique_ptr<Hardware> hardware_;
  std::array<std::byte, 4096> config_{};
  Bars bars_;
  std::array<std::uint64_t, 6> bar_offsets_{};
  Interrupts interrupts_;
};

}  // namespace postern::sim
