// SPDX-License-Identifier: Apache-2.0
// Hardware: what is behind a PCI function: its BARs, its registers, its DMA and its interrupts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace postern::sim {

// What a function's hardware reaches the rest of the machine through.
class Slot {
 public:
  virtual ~Slot() = default;
  // DMA through the IOMMU. False where it is blocked: not mapped for that, or the function is no bus master.
  [[nodiscard]] virtual bool dma_read(Iova iova, std::span<std::byte> bytes) = 0;
  [[nodiscard]] virtual bool dma_write(Iova iova, std::span<const std::byte> bytes) = 0;
  // MSI-X or MSI; nothing happens while that vector is off.
  virtual void interrupt(std::uint32_t vector) = 0;
  // Whether MSI or MSI-X is on: then the hardware leaves its INTx line alone.
  [[nodiscard]] virtual bool signals_messages() const = 0;
  // The level of its INTx line.
  virtual void set_line(bool up) = 0;
};

struct Bar {
  enum class Kind : std::uint8_t { memory64, memory32, io };

  std::uint32_t size = 0;  // bytes, a power of two; 0: no such BAR
  Kind kind = Kind::memory64;
  bool shares_page = false;  // of a BAR below a page: another function's is in the same page
};

struct HardwareInfo {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint32_t class_code = 0;  // as sysfs has it: 0x010802
  std::uint8_t revision = 0;
  std::array<Bar, 6> bars{};       // behind one of 64 bits an empty one
  std::uint32_t msix_vectors = 0;  // 0: it has none. Their table is in BAR 0.
  std::uint32_t msi_vectors = 0;
  bool has_intx = true;
  bool is_express = true;  // PCI Express, with a config space of 4 KiB
  bool has_flr = true;
  std::string_view variant_driver = {};  // a VFIO driver of its own, for hardware that is migratable; empty: none
};

// The memory of each BAR.
using Bars = std::array<std::span<std::byte>, 6>;

// Hardware that can be stopped, and whose state can be taken and put into another of its kind.
class Migratable {
 public:
  // All of it; all but DMA; nothing: no interrupts, and no change of its state.
  enum class Activity : std::uint8_t { full, no_dma, none };

  virtual ~Migratable() = default;
  // DMA that runs is ended first.
  virtual void set_activity(Activity activity) = 0;
  [[nodiscard]] virtual std::vector<std::byte> save() const = 0;
  // While there is no activity. False where these bytes are no state of such hardware; then it is as it was.
  [[nodiscard]] virtual bool load(std::span<const std::byte> state) = 0;
};

// Runs under the machine's lock, as all of it does. A BAR is plain memory that the process may have mapped, so that the
// hardware learns of a write by looking: poll() is called again and again while somebody has the function open.
class Hardware {
 public:
  virtual ~Hardware() = default;
  [[nodiscard]] virtual const HardwareInfo& info() const = 0;
  // The memory is there as long as the hardware is used; called once.
  virtual void connect(Slot& slot, const Bars& bars) = 0;
  // As after power-on.
  virtual void reset() = 0;
  // Does what its registers ask for, some of it at a time. Whether there was anything to do.
  [[nodiscard]] virtual bool poll() = 0;
  // One access by the device's fd, of 1, 2, 4 or 8 aligned bytes. False: to this hardware a BAR is memory, and it
  // looks.
  [[nodiscard]] virtual bool write(std::size_t /*bar*/, std::uint64_t /*offset*/,
                                   std::span<const std::byte> /*bytes*/) {
    return false;
  }
  [[nodiscard]] virtual Migratable* migratable() { return nullptr; }
};

}  // namespace postern::sim
