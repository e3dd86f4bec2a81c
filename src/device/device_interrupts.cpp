// SPDX-License-Identifier: Apache-2.0
// Device: interrupts, by VFIO_DEVICE_SET_IRQS.
#include <fmt/format.h>

#include <postern/device.hpp>

#include "base/remedy.hpp"
#include "device/device_io.hpp"
#include "device/irqs.hpp"
#include "kernel/vfio.hpp"

namespace postern {

Result<const Interrupt*> Device::find_interrupt(std::uint32_t index) const {
  if (!io_) return closed();
  if (index < interrupts_.size() && interrupts_[index].count > 0) return &interrupts_[index];
  return refusal({.result = -ENODEV,
                  .object = interrupt_text(name_, is_pci(), index),
                  .reason = "the device has no such interrupt"});
}

// What is on of an interrupt that an InterruptSet has is known to that alone.
Result<void> Device::check_not_in_set(std::uint32_t index, const std::string& object) const {
  if (!io_->claimed_interrupts.has(index)) return {};
  return refusal({.result = -EBUSY,
                  .object = object,
                  .reason = "an InterruptSet has this kind of interrupt",
                  .remedy = RemedyCode::use_interrupt_set});
}

Result<void> Device::enable_interrupts(std::uint32_t index, std::uint32_t first, std::span<const Event> events) const {
  auto found = POSTERN_TRY(find_interrupt(index));
  const Interrupt& interrupt = *found;
  CallFailed what{.object = interrupt_text(name_, is_pci(), index)};
  if (events.empty()) {
    what.result = -EINVAL;
    what.reason = "no events are given";
    what.remedy = remedy<RemedyCode::turn_vectors_off>("disable()");
    return refusal(std::move(what));
  }
  what.object += vectors_text(interrupt, first, events.size());
  POSTERN_TRY(check_vectors(interrupt, what.object, first, events.size()));
  std::vector<std::int32_t> eventfds;
  for (const Event& event : events) {
    if (event.fd() < 0) {
      what.result = -EBADF;
      what.kind = ErrorKind::invalid_argument;
      what.reason = fmt::format("the Event of vector {} was moved from", first + eventfds.size());
      return refusal(std::move(what));
    }
    eventfds.push_back(event.fd());
  }
  POSTERN_TRY(check_not_in_set(index, what.object));
  if (first > 0 && !interrupt.resizable) {
    what.result = -EOPNOTSUPP;
    what.reason = "no vectors of this kind can be added while some are enabled (VFIO_IRQ_INFO_NORESIZE)";
    what.remedy = RemedyCode::enable_interrupts_together;
    return refusal(std::move(what));
  }
  what.result = set_irq_eventfds(*io_, VFIO_IRQ_SET_ACTION_TRIGGER, index, first, eventfds);
  if (what.result == 0) return {};
  return eventfds_failure(*io_, std::move(what), true, first, eventfds);
}

Result<void> Device::disable_interrupts(std::uint32_t index) const {
  auto found = POSTERN_TRY(find_interrupt(index));
  const std::string object = interrupt_text(name_, is_pci(), index) + vectors_text(*found, 0, found->count);
  POSTERN_TRY(check_not_in_set(index, object));
  const int result = turn_irq_off(*io_, index);
  if (result >= 0) return {};
  return call_failure(vfio::device_set_irqs.symbol, {.result = result, .object = object});
}

Result<void> Device::disable_interrupts(std::uint32_t index, std::uint32_t first, std::uint32_t count) const {
  auto found = POSTERN_TRY(find_interrupt(index));
  if (first == 0 && count == found->count) return disable_interrupts(index);
  CallFailed what{.object = interrupt_text(name_, is_pci(), index)};
  if (count == 0) {
    what.result = -EINVAL;
    what.reason = "no vectors are given";
    return refusal(std::move(what));
  }
  what.object += vectors_text(*found, first, count);
  POSTERN_TRY(check_vectors(*found, what.object, first, count));
  POSTERN_TRY(check_not_in_set(index, what.object));
  // Vectors without an eventfd turn on a kind that is off (vfio_pci_set_msi_trigger); triggering none of them does
  // nothing, or says EINVAL if it is off.
  what.result = set_irq_bools(*io_, VFIO_IRQ_SET_ACTION_TRIGGER, index, first, std::vector<std::uint8_t>(count));
  if (what.result == -EINVAL) return {};
  if (what.result >= 0) {
    const std::vector<std::int32_t> none(count, no_eventfd);
    what.result = set_irq_eventfds(*io_, VFIO_IRQ_SET_ACTION_TRIGGER, index, first, none);
  }
  if (what.result >= 0) return {};
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

Result<void> Device::change_mask(std::uint32_t action, std::uint32_t index, std::uint32_t vector) const {
  auto found = POSTERN_TRY(find_interrupt(index));
  const int result = set_irq_none(*io_, action, index, vector, 1);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = interrupt_text(name_, is_pci(), index) + vectors_text(*found, vector, 1)};
  if (result == -ENOTTY && !found->maskable) {
    what.reason = "VFIO does not mask interrupts of this kind (no VFIO_IRQ_INFO_MASKABLE)";
    what.remedy = RemedyCode::disable_instead_of_masking;
  } else if (result == -EINVAL) {
    what.reason = "it is not enabled";
    what.remedy = RemedyCode::enable_interrupt_first;
  }
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

Result<void> Device::mask_interrupt(std::uint32_t index, std::uint32_t vector) const {
  return change_mask(VFIO_IRQ_SET_ACTION_MASK, index, vector);
}

Result<void> Device::unmask_interrupt(std::uint32_t index, std::uint32_t vector) const {
  return change_mask(VFIO_IRQ_SET_ACTION_UNMASK, index, vector);
}

}  // namespace postern
