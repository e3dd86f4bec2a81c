// SPDX-License-Identifier: Apache-2.0
// Interrupts: the eventfds of a function's interrupts, by the rules of vfio_pci_intrs.c (Linux 7.3).
#pragma once

#include <linux/vfio.h>

#include <array>
#include <cstdint>
#include <map>
#include <optional>

namespace postern::sim {

class Interrupts {
 public:
  struct Counts {
    std::uint32_t intx = 0;
    std::uint32_t msi = 0;
    std::uint32_t msix = 0;
  };
  explicit Interrupts(Counts counts) : counts_(counts) {}
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts() { disable(); }

  // The number of vectors of an index (VFIO_PCI_*_IRQ_INDEX).
  [[nodiscard]] std::uint32_t count(std::uint32_t index) const;
  // VFIO_DEVICE_SET_IRQS: 0 or a negated errno.
  [[nodiscard]] int set(const vfio_irq_set& set);
  // Disables all of them.
  void disable();

  // The kernel raises an error or request interrupt; does nothing if it is disabled.
  void notify(std::uint32_t index) const;
  // The hardware sends a vector of MSI or MSI-X, whichever is enabled.
  void raise_message(std::uint32_t vector) const;
  // The hardware's INTx line, which is level-triggered: while it is high, INTx is sent again after each unmask.
  void set_line(bool up);
  [[nodiscard]] bool is_line_up() const noexcept { return is_line_up_; }

  // Whether interrupts of this index are enabled: INTx, MSI or MSI-X.
  [[nodiscard]] bool uses(std::uint32_t index) const noexcept { return type_ == index; }
  // pci_msix_can_alloc_dyn: while MSI-X is enabled, further vectors can be added.
  bool can_add_vectors = true;
  // The command register's INTx Disable.
  void disable_intx(bool disabled);
  // Unmasks INTx if its unmask eventfd was signalled.
  void look_for_unmask();

 private:
  struct Intx {
    int trigger = -1;
    int unmask = -1;
  };
  [[nodiscard]] int set_intx(const vfio_irq_set& set);
  [[nodiscard]] int set_intx_unmask(const vfio_irq_set& set);
  [[nodiscard]] int set_intx_trigger(const vfio_irq_set& set);
  [[nodiscard]] int set_messages(const vfio_irq_set& set);
  [[nodiscard]] int set_vectors(const vfio_irq_set& set);
  [[nodiscard]] int set_notifier(const vfio_irq_set& set, int& eventfd) const;
  void disable_vector(std::uint32_t vector);
  void disable_intx();
  void disable_messages();
  void handle_line();
  void mask_intx();
  void unmask_intx();

  Counts counts_;
  std::optional<std::uint32_t> type_;     // INTx, MSI or MSI-X: one at a time
  Intx intx_;                             // eventfds; -1: disabled
  std::map<std::uint32_t, int> vectors_;  // of MSI or MSI-X
  std::uint32_t allocated_ = 0;           // the vectors with which they were enabled
  std::array<int, 2> notifiers_{-1, -1};  // of errors, and of requests for the device
  bool is_intx_disabled_ = false;
  bool is_masked_ = false;  // INTx
  bool is_line_up_ = false;
};

}  // namespace postern::sim
