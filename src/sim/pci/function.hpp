// SPDX-License-Identifier: Apache-2.0
// Function: a PCI function of the simulated host: config space, BARs, interrupts, and vfio-pci's data of it.
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
#include "sim/pci/ioeventfds.hpp"
#include "sim/process/dma_buf.hpp"

namespace postern::sim {

class Function final : public Device, private Slot {
 public:
  Function(PciAddress address, int group, std::unique_ptr<Hardware> hardware);
  Function(const Function&) = delete;
  Function& operator=(const Function&) = delete;
  ~Function() override = default;

  [[nodiscard]] PciAddress address() const noexcept { return address_; }
  [[nodiscard]] const HardwareInfo& info() const { return hardware_->info(); }

  bool low_power = false;          // entered by VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY
  std::optional<Variant> variant;  // while it is open with its own VFIO driver

  // The first open by this process, and the last close (vfio_pci_core_enable, vfio_pci_core_disable).
  void enable(Process& process);
  void disable();

  // Config space as VFIO shows it; writes can change the command register and the BARs, which has no effect on
  // addresses.
  void read_config(std::uint64_t offset, std::span<std::byte> bytes) const;
  void write_config(std::uint64_t offset, std::span<const std::byte> bytes);

  // Its size in bytes.
  [[nodiscard]] std::uint64_t config_size() const { return info().is_express ? 4096 : 256; }

  // The size of its BARs, and their memory: set once, before it is opened. The memory outlives the function.
  [[nodiscard]] std::uint64_t bars_length() const;
  void connect(std::span<std::byte> memory, std::uint64_t offset);
  // The offset of a BAR in the machine's BarMemory.
  [[nodiscard]] std::uint64_t bar_offset(std::size_t index) const { return bar_offsets_[index]; }
  // One access of 1, 2, 4 or 8 aligned bytes, as VFIO does them.
  void read_bar(std::size_t index, std::uint64_t offset, std::span<std::byte> bytes) const;
  void write_bar(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes);
  // Whether its memory BARs, or its I/O BARs, are enabled in the command register.
  // By its power management capability.
  [[nodiscard]] bool is_in_d3hot() const;
  // Memory is off in D3hot, too.
  [[nodiscard]] bool is_memory_on() const;
  [[nodiscard]] bool is_io_on() const { return has_command(PCI_COMMAND_IO); }
  // The dma-bufs of its BARs, until it is closed. Nobody can map them while they are revoked.
  void add_dma_buf(const std::shared_ptr<DmaBuf>& dma_buf);
  void move_dma_bufs(bool are_revoked) noexcept;
  // Where a BAR is in this process.
  [[nodiscard]] std::span<std::byte> bar(std::size_t index) const noexcept { return bars_[index]; }
  // The MSI-X table's range in BAR 0; empty if it has none.
  [[nodiscard]] std::pair<std::uint64_t, std::uint64_t> vector_table() const;

  [[nodiscard]] Interrupts& interrupts() noexcept { return interrupts_; }
  [[nodiscard]] Ioeventfds& ioeventfds() noexcept { return ioeventfds_; }

  // Wraps its hardware in other hardware of the same kind.
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
  void do_ioeventfd(const IoeventfdWrite& write);

  PciAddress address_;
  std::unique_ptr<Hardware> hardware_;
  std::array<std::byte, 4096> config_{};
  Bars bars_;
  std::array<std::uint64_t, 6> bar_offsets_{};
  std::vector<std::weak_ptr<DmaBuf>> dma_bufs_;
  Interrupts interrupts_;
  Ioeventfds ioeventfds_;
};

}  // namespace postern::sim
