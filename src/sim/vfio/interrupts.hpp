// SPDX-License-Identifier: Apache-2.0
// Interrupts: which eventfds a function's interrupts go to, by the rules of vfio_pci_intrs.c (Linux 7.3).
#pragma once

#include <linux/vfio.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>

namespace postern::sim {

class Interrupts {
 public:
  explicit Interrupts(std::uint32_t msix_vectors) : msix_vectors_(msix_vectors) {}
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts() { disable(); }

  // How many there are of an index (VFIO_PCI_*_IRQ_INDEX).
  [[nodiscard]] std::uint32_t count(std::uint32_t index) const;
  // VFIO_DEVICE_SET_IRQS: 0 or a negated errno.
  [[nodiscard]] int set(const vfio_irq_set& set);
  // All of them off.
  void disable();

  // The hardware, or the kernel, raises one; nothing happens where nobody wants it.
  void raise(std::uint32_t index, std::uint32_t vector) const;

  // pci_msix_can_alloc_dyn: while MSI-X is on, vectors can be added to those that it was switched on with.
  bool can_add_vectors = true;

  [[nodiscard]] bool uses_msix() const noexcept { return type_ == VFIO_PCI_MSIX_IRQ_INDEX; }
  // The command register's INTx Disable.
  void disable_intx(bool disabled) { is_intx_disabled_ = disabled; }

 private:
  struct Intx {
    int trigger = -1;
    int unmask = -1;
  };
  [[nodiscard]] int set_intx(const vfio_irq_set& set);
  [[nodiscard]] int set_intx_unmask(const vfio_irq_set& set);
  [[nodiscard]] int set_intx_trigger(const vfio_irq_set& set);
  [[nodiscard]] int set_msix(const vfio_irq_set& set);
  [[nodiscard]] int set_vectors(const vfio_irq_set& set);
  [[nodiscard]] int set_notifier(const vfio_irq_set& set, int& eventfd) const;
  void forget(std::uint32_t vector);
  void disable_intx();
  void disable_msix();

  std::uint32_t msix_vectors_;
  std::optional<std::uint32_t> type_;     // INTx or MSI-X: one at a time
  Intx intx_;                             // eventfds; -1 is off
  std::map<std::uint32_t, int> vectors_;  // of MSI-X
  std::uint32_t allocated_ = 0;           // vectors that it was switched on with
  std::array<int, 2> notifiers_{-1, -1};  // of errors, and of being asked for the device
  bool is_intx_disabled_ = false;
};

}  // namespace postern::sim
