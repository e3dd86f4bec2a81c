// SPDX-License-Identifier: Apache-2.0
// Hardware: the hardware of a PCI function: BARs, registers, DMA and interrupts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace postern::sim {

// The interface of a function's hardware to the rest of the machine.
class Slot {
 public:
  virtual ~Slot() = default;
  // DMA through the IOMMU. False if it is blocked: not mapped for this access, or bus mastering is disabled.
  [[nodiscard]] virtual bool dma_read(Iova iova, std::span<std::byte> bytes) = 0;
  [[nodiscard]] virtual bool dma_write(Iova iova, std::span<const std::byte> bytes) = 0;
  // Sends an MSI-X or MSI; does nothing while that vector is disabled.
  virtual void interrupt(std::uint32_t vector) = 0;
  // Whether MSI or MSI-X is enabled: then the hardware does not use its INTx line.
  [[nodiscard]] virtual bool signals_messages() const = 0;
  // Sets the level of its INTx line.
  virtual void set_line(bool up) = 0;
};

struct Bar {
  enum class Kind : std::uint8_t { memory64, memory32, io };

  std::uint32_t size = 0;  // bytes, a power of two; 0: no such BAR
  Kind kind = Kind::memory64;
  bool shares_page = false;  // for a BAR below a page: another function's BAR is in the same page
};

struct HardwareInfo {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint32_t class_code = 0;  // as sysfs has it: 0x010802
  std::uint8_t revision = 0;
  std::array<Bar, 6> bars{};       // a 64-bit BAR is followed by an empty one
  std::uint32_t msix_vectors = 0;  // 0: no MSI-X. The table is in BAR 0.
  std::uint32_t msi_vectors = 0;
  bool has_intx = true;
  bool is_express = true;  // PCI Express, with a config space of 4 KiB
  bool has_flr = true;
  std::string_view variant_driver = {};  // the VFIO driver of migratable hardware; empty: none
};

// The memory of each BAR.
using Bars = std::array<std::span<std::byte>, 6>;

// Migratable hardware: it can be stopped, and its state saved and loaded into another one of its kind.
class Migratable {
 public:
  // Everything; everything but DMA; or nothing: no interrupts, and no change of its state.
  enum class Activity : std::uint8_t { full, no_dma, none };

  virtual ~Migratable() = default;
  // Running DMA ends first.
  virtual void set_activity(Activity activity) = 0;
  [[nodiscard]] virtual std::vector<std::byte> save() const = 0;
  // Called while there is no activity. False if these bytes are not a valid state; then nothing has changed.
  [[nodiscard]] virtual bool load(std::span<const std::byte> state) = 0;
};

// Runs under the machine's lock. A BAR is plain memory that the process may have mapped, so the hardware must poll for
// writes: poll() is called again and again while the function is open.
class Hardware {
 public:
  virtual ~Hardware() = default;
  [[nodiscard]] virtual const HardwareInfo& info() const = 0;
  // The memory outlives the use of the hardware. Called once.
  virtual void connect(Slot& slot, const Bars& bars) = 0;
  // Resets it to the state after power-on.
  virtual void reset() = 0;
  // Executes what its registers request, a part at a time. Returns whether there was anything to do.
  [[nodiscard]] virtual bool poll() = 0;
  // One access by the device's fd, of 1, 2, 4 or 8 aligned bytes. False: this hardware treats BARs as memory, and
  // polls.
  [[nodiscard]] virtual bool write(std::size_t /*bar*/, std::uint64_t /*offset*/,
                                   std::span<const std::byte> /*bytes*/) {
    return false;
  }
  [[nodiscard]] virtual Migratable* migratable() { return nullptr; }
};

}  // namespace postern::sim
