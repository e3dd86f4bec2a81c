// SPDX-License-Identifier: Apache-2.0
// Hardware: what is behind a PCI function: its BARs, its registers, its DMA and its interrupts.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <postern/iova.hpp>
#include <span>

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
};

struct HardwareInfo {
  std::uint16_t vendor = 0;
  std::uint16_t device = 0;
  std::uint32_t class_code = 0;  // as sysfs has it: 0x010802
  std::uint8_t revision = 0;
  std::array<std::uint32_t, 6> bar_sizes{};  // bytes; 0: no such BAR. Memory BARs of 32 bits.
  std::uint32_t msix_vectors = 0;            // 0: it has none. Their table is in BAR 0.
  bool has_flr = true;
};

// Runs under the machine's lock, as all of it does. A BAR is plain memory that the process may have mapped, so that the
// hardware learns of a write by looking: poll() is called again and again while somebody has the function open.
class Hardware {
 public:
  virtual ~Hardware() = default;
  [[nodiscard]] virtual const HardwareInfo& info() const = 0;
  // The memory of BAR 0, which outlives the hardware; called once.
  virtual void connect(Slot& slot, std::span<std::byte> bar) = 0;
  // As after power-on.
  virtual void reset() = 0;
  // Does what its registers ask for, some of it at a time. Whether there was anything to do.
  [[nodiscard]] virtual bool poll() = 0;
};

}  // namespace postern::sim
