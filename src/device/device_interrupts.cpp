// SPDX-License-Identifier: Apache-2.0
// Device's interrupts: VFIO_DEVICE_SET_IRQS in its several meanings.
#include <fmt/format.h>

#include <postern/device.hpp>

#include "device/device_io.hpp"
#include "kernel/tailed.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

// With room for eventfds behind it.
using IrqSet = Tailed<vfio_irq_set, std::int32_t>;

}  // namespace

Result<const Interrupt*> Device::find_interrupt(std::uint32_t index) const {
  if (!io_) return closed();
  if (index < interrupts_.size() && interrupts_[index].count > 0) return &interrupts_[index];
  return refusal({.result = -ENODEV,
                  .object = fmt::format("{} interrupt {}", name_, index),
                  .reason = "the device has no such interrupt"});
}

Result<void> Device::enable_interrupts(std::uint32_t index, std::uint32_t first, std::span<const Event> events) const {
  auto found = find_interrupt(index);
  if (!found) return failure_of(found);
  const Interrupt& interrupt = **found;
  CallFailed what{.object = fmt::format("{} interrupt {} vectors {}+{}", name_, index, first, events.size())};
  if (events.empty() || events.size() > interrupt.count || first > interrupt.count - events.size()) {
    what.result = -ERANGE;
    what.reason = fmt::format("the device has {} vectors of this kind", interrupt.count);
    return refusal(std::move(what));
  }
  if (first > 0 && !interrupt.resizable) {
    what.result = -EOPNOTSUPP;
    what.reason = "vectors of this kind cannot be added to those that are on (VFIO_IRQ_INFO_NORESIZE)";
    what.remedy = "turn them off, then turn all that are wanted on in one call";
    return refusal(std::move(what));
  }
  IrqSet irqs(events.size());
  irqs.head().flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
  irqs.head().index = index;
  irqs.head().start = first;
  irqs.head().count = static_cast<std::uint32_t>(events.size());
  for (std::size_t i = 0; i < events.size(); ++i) irqs.tail()[i] = events[i].fd();
  const int result = io_->set_irqs(irqs.head());
  if (result == 0) return {};
  // vfio_msi_enable answers how many vectors it could have had instead of an errno.
  if (result > 0) {
    what.result = -ENOSPC;
    what.reason =
        fmt::format("{} says that the host has only {} vectors left for it", vfio::device_set_irqs.symbol, result);
    return refusal(std::move(what));
  }
  what.result = result;
  if (result == -EINVAL) what.reason = "another kind of interrupt is on: INTx, MSI and MSI-X exclude each other";
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

Result<void> Device::act_on_interrupt(std::uint32_t index, std::uint32_t action, std::uint32_t first,
                                      std::uint32_t count) const {
  auto found = find_interrupt(index);
  if (!found) return failure_of(found);
  vfio_irq_set irqs{};
  irqs.argsz = sizeof irqs;
  irqs.flags = VFIO_IRQ_SET_DATA_NONE | action;
  irqs.index = index;
  irqs.start = first;
  irqs.count = count;
  const int result = io_->set_irqs(irqs);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = fmt::format("{} interrupt {} vectors {}+{}", name_, index, first, count)};
  if (action != VFIO_IRQ_SET_ACTION_TRIGGER && result == -ENOTTY && !(*found)->maskable) {
    what.reason = "VFIO does not mask interrupts of this kind (no VFIO_IRQ_INFO_MASKABLE)";
    what.remedy = "turn them off, or have the device hold them back";
  } else if (action != VFIO_IRQ_SET_ACTION_TRIGGER && result == -EINVAL) {
    what.reason = "it is not on";
    what.remedy = "enable it first";
  }
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

Result<void> Device::disable_interrupts(std::uint32_t index) const {
  // An interrupt is turned off by triggering none of its vectors; EINVAL says that none is on
  // (vfio_pci_set_msi_trigger).
  auto done = act_on_interrupt(index, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0);
  if (!done && done.error().code() == EINVAL) return {};
  return done;
}

Result<void> Device::mask_interrupt(std::uint32_t index, std::uint32_t vector) const {
  return act_on_interrupt(index, VFIO_IRQ_SET_ACTION_MASK, vector, 1);
}

Result<void> Device::unmask_interrupt(std::uint32_t index, std::uint32_t vector) const {
  return act_on_interrupt(index, VFIO_IRQ_SET_ACTION_UNMASK, vector, 1);
}

}  // namespace postern
