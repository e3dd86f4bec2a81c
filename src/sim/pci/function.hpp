// SPDX-License-Identifier: Apache-2.0
// Function: a PCI function of the simulated host: its config space, its BARs, its interrupts, where its DMA goes.
#pragma once

#include <linux/pci_regs.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <postern/pci_address.hpp>
#include <span>
#include <string>
#include <vector>

#include "sim/devices/hardware.hpp"
#include "sim/iommu/address_space.hpp"
#include "sim/migration/variant.hpp"
#include "sim/pci/interrupts.hpp"

namespace postern::sim {

class Iommufd;

class Function final : private Slot {
 public:
  Function(PciAddress address, int group, std::unique_ptr<Hardware> hardware);
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  ~Function() override = default;

  [[nodiscard]] PciAddress address() const noexcept { return address_; }
  [[nodiscard]] int group() const noexcept { return group_; }  // negative: none
  [[nodiscard]] const HardwareInfo& info() const { return hardware_->info(); }
  [[nodiscard]] std::string name() const { return to_string(address_); }

  std::string native_driver;       // the one that takes it where nobody says otherwise: "nvme"
  std::string driver;              // bound now; empty: none
  std::string driver_override;     // empty: none
  std::optional<int> minor;        // of its cdev, while it is bound to vfio-pci
  int opens = 0;                   // by its group or its cdev
  bool low_power = false;          // asked for, not there
  std::optional<Variant> variant;  // while it is open, and its own VFIO driver has it

  // That it is bound to, by its cdev or its group; null: none.
  std::shared_ptr<Iommufd> iommufd;
  // Where its DMA goes; null: it is blocked.
  std::shared_ptr<Domain> domain;
  // All of memory, where no IOMMU is in front of it: then its DMA goes there, and `domain` is of no use.
  std::shared_ptr<Domain> physical;
  [[nodiscard]] bool has_iommu() const noexcept { return physical == nullptr; }
  // VFIO makes groups for functions without an IOMMU, and takes them back.
  void set_group(int group) noexcept { group_ = group; }

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
  int group_;
  std::unique_ptr<Hardware> hardware_;
  std::array<std::byte, 4096> config_{};
  Bars bars_;
  std::array<std::uint64_t, 6> bar_offsets_{};
  Interrupts interrupts_;
};

}  // namespace postern::sim
