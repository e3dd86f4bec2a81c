// SPDX-License-Identifier: Apache-2.0
// Interrupts: INTx, MSI, MSI-X, and the error and request interrupts.
#include "sim/pci/interrupts.hpp"

#include <cerrno>
#include <cstring>
#include <utility>

#include "sim/pci/eventfds.hpp"

namespace postern::sim {
namespace {

std::uint32_t data_of(const vfio_irq_set& set) { return set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK; }
std::uint32_t action_of(const vfio_irq_set& set) { return set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK; }
bool is_none(const vfio_irq_set& set) { return data_of(set) == VFIO_IRQ_SET_DATA_NONE; }
bool is_eventfds(const vfio_irq_set& set) { return data_of(set) == VFIO_IRQ_SET_DATA_EVENTFD; }

int fd_at(const vfio_irq_set& set, std::uint32_t i) {
  std::int32_t fd = -1;
  std::memcpy(&fd, set.data + i * sizeof fd, sizeof fd);
  return fd;
}

// Whether a set without eventfds raises this one.
bool wants(const vfio_irq_set& set, std::uint32_t i) { return is_none(set) || set.data[i] != 0; }

}  // namespace

std::uint32_t Interrupts::count(std::uint32_t index) const {
  switch (index) {
    case VFIO_PCI_INTX_IRQ_INDEX:
      return counts_.intx;
    case VFIO_PCI_MSI_IRQ_INDEX:
      return counts_.msi;
    case VFIO_PCI_MSIX_IRQ_INDEX:
      return counts_.msix;
    default:
      return index == VFIO_PCI_ERR_IRQ_INDEX || index == VFIO_PCI_REQ_IRQ_INDEX ? 1 : 0;
  }
}

// vfio_set_irqs_validate_and_prepare, vfio_pci_set_irqs_ioctl
int Interrupts::set(const vfio_irq_set& set) {
  if (set.argsz < sizeof set || set.index >= VFIO_PCI_NUM_IRQS || set.count >= 0xffffffff - set.start) return -EINVAL;
  constexpr std::uint32_t known = VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK;
  if ((set.flags & ~known) != 0) return -EINVAL;
  const std::uint32_t most = count(set.index);
  if (set.start >= most || set.start + set.count > most) return -EINVAL;
  const std::uint32_t data = data_of(set);
  if (data != VFIO_IRQ_SET_DATA_NONE && data != VFIO_IRQ_SET_DATA_BOOL && data != VFIO_IRQ_SET_DATA_EVENTFD) {
    return -EINVAL;
  }
  const std::size_t each = data == VFIO_IRQ_SET_DATA_EVENTFD ? 4 : data == VFIO_IRQ_SET_DATA_BOOL ? 1 : 0;
  if (set.argsz - sizeof set < set.count * each) return -EINVAL;
  if (set.index == VFIO_PCI_INTX_IRQ_INDEX) return set_intx(set);
  if (action_of(set) != VFIO_IRQ_SET_ACTION_TRIGGER) return -ENOTTY;
  return set.index == VFIO_PCI_MSI_IRQ_INDEX || set.index == VFIO_PCI_MSIX_IRQ_INDEX
             ? set_messages(set)
             : set_notifier(set, notifiers_[set.index - VFIO_PCI_ERR_IRQ_INDEX]);
}

int Interrupts::set_intx(const vfio_irq_set& set) {
  const bool one = type_ == VFIO_PCI_INTX_IRQ_INDEX && set.start == 0 && set.count == 1;
  switch (action_of(set)) {
    case VFIO_IRQ_SET_ACTION_MASK:
      if (!one || is_eventfds(set)) return one ? -ENOTTY : -EINVAL;
      if (wants(set, 0)) mask_intx();
      return 0;
    case VFIO_IRQ_SET_ACTION_UNMASK:
      return !one ? -EINVAL : set_intx_unmask(set);
    case VFIO_IRQ_SET_ACTION_TRIGGER:
      return set_intx_trigger(set);
    default:
      return -ENOTTY;
  }
}

// vfio_pci_set_intx_unmask, vfio_virqfd_enable
int Interrupts::set_intx_unmask(const vfio_irq_set& set) {
  if (!is_eventfds(set)) {
    if (wants(set, 0)) unmask_intx();
    return 0;
  }
  if (fd_at(set, 0) < 0) {
    drop(intx_.unmask);
    return 0;
  }
  int eventfd = take_eventfd(fd_at(set, 0));
  if (eventfd < 0) return eventfd;
  if (intx_.unmask >= 0) {
    drop(eventfd);
    return -EBUSY;
  }
  intx_.unmask = eventfd;
  return 0;
}

int Interrupts::set_intx_trigger(const vfio_irq_set& set) {
  const bool is_on = type_ == VFIO_PCI_INTX_IRQ_INDEX;
  if (is_on && set.count == 0 && is_none(set)) {
    disable_intx();
    return 0;
  }
  if ((type_ && !is_on) || set.start != 0 || set.count != 1) return -EINVAL;
  if (is_eventfds(set)) {
    const int eventfd = fd_at(set, 0) < 0 ? -1 : take_eventfd(fd_at(set, 0));
    if (fd_at(set, 0) >= 0 && eventfd < 0) return eventfd;
    drop(intx_.trigger);
    intx_.trigger = eventfd;
    if (!is_on) {  // vfio_intx_enable
      type_ = VFIO_PCI_INTX_IRQ_INDEX;
      is_masked_ = is_intx_disabled_;
      handle_line();
    }
    return 0;
  }
  if (!is_on) return -EINVAL;
  if (wants(set, 0) && !is_intx_disabled_) signal(intx_.trigger);  // vfio_send_intx_eventfd
  return 0;
}

// vfio_pci_set_msi_trigger
int Interrupts::set_messages(const vfio_irq_set& set) {
  const bool is_on = type_ == set.index;
  if (is_on && set.count == 0 && is_none(set)) {
    disable_messages();
    return 0;
  }
  if (type_ && !is_on) return -EINVAL;
  if (is_eventfds(set)) {
    if (is_on) return set_vectors(set);
    if (set.start + set.count == 0) return -ERANGE;  // pci_alloc_irq_vectors
    type_ = set.index;
    allocated_ = set.start + set.count;
    const int result = set_vectors(set);
    if (result < 0) disable_messages();
    return result;
  }
  if (!is_on) return -EINVAL;
  for (std::uint32_t i = 0; i < set.count; ++i) {
    if (wants(set, i)) raise_message(set.start + i);
  }
  return 0;
}

// vfio_msi_set_block, vfio_msi_set_vector_signal: after a failure those before it are disabled, too.
int Interrupts::set_vectors(const vfio_irq_set& set) {
  for (std::uint32_t i = 0; i < set.count; ++i) {
    const std::uint32_t vector = set.start + i;
    disable_vector(vector);
    if (fd_at(set, i) < 0) continue;
    const bool can_add = type_ == VFIO_PCI_MSIX_IRQ_INDEX && can_add_vectors;  // vfio_msi_alloc_irq
    const bool has_vector = can_add || vector < allocated_;
    const int eventfd = has_vector ? take_eventfd(fd_at(set, i)) : -EINVAL;
    if (eventfd >= 0) {
      vectors_[vector] = eventfd;
      continue;
    }
    for (std::uint32_t before = set.start; before < vector; ++before) disable_vector(before);
    return eventfd;
  }
  return 0;
}

// vfio_pci_set_ctx_trigger_single
int Interrupts::set_notifier(const vfio_irq_set& set, int& eventfd) const {
  if (is_none(set)) {
    if (eventfd < 0) return -EINVAL;
    if (set.count != 0) {
      signal(eventfd);
    } else {
      drop(eventfd);
    }
    return 0;
  }
  if (set.count == 0) return -EINVAL;
  if (!is_eventfds(set)) {
    if (wants(set, 0)) signal(eventfd);
    return 0;
  }
  const int fd = fd_at(set, 0);
  if (fd < -1) return -EINVAL;
  const int taken = fd == -1 ? -1 : take_eventfd(fd);
  if (fd >= 0 && taken < 0) return taken;
  drop(eventfd);
  eventfd = taken;
  return 0;
}

void Interrupts::disable_vector(std::uint32_t vector) {
  const auto found = vectors_.find(vector);
  if (found == vectors_.end()) return;
  drop(found->second);
  vectors_.erase(found);
}

void Interrupts::disable_intx() {
  drop(intx_.trigger);
  drop(intx_.unmask);
  type_.reset();
}

void Interrupts::disable_messages() {
  while (!vectors_.empty()) disable_vector(vectors_.begin()->first);
  type_.reset();
}

void Interrupts::disable() {
  disable_intx();
  disable_messages();
  for (int& eventfd : notifiers_) drop(eventfd);
  is_intx_disabled_ = false;
}

void Interrupts::disable_intx(bool disabled) {
  const bool was_disabled = std::exchange(is_intx_disabled_, disabled);
  if (disabled && !was_disabled) mask_intx();
  if (!disabled && was_disabled) unmask_intx();  // vfio_basic_config_write
}

void Interrupts::set_line(bool up) {
  is_line_up_ = up;
  handle_line();
}

// vfio_intx_handler: it masks itself.
void Interrupts::handle_line() {
  if (!uses(VFIO_PCI_INTX_IRQ_INDEX) || !is_line_up_ || is_masked_) return;
  is_masked_ = true;
  signal(intx_.trigger);
}

void Interrupts::mask_intx() {
  if (uses(VFIO_PCI_INTX_IRQ_INDEX)) is_masked_ = true;
}

// vfio_pci_intx_unmask_handler: with the line still up the signal is sent again, and it stays masked.
void Interrupts::unmask_intx() {
  if (!uses(VFIO_PCI_INTX_IRQ_INDEX) || !is_masked_ || is_intx_disabled_) return;
  is_masked_ = is_line_up_;
  if (is_line_up_) signal(intx_.trigger);
}

void Interrupts::look_for_unmask() {
  if (take_signals(intx_.unmask)) unmask_intx();
}

void Interrupts::notify(std::uint32_t index) const { signal(notifiers_[index - VFIO_PCI_ERR_IRQ_INDEX]); }

void Interrupts::raise_message(std::uint32_t vector) const {
  if (const auto found = vectors_.find(vector); found != vectors_.end()) signal(found->second);
}

}  // namespace postern::sim
