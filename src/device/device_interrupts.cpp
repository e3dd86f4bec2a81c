// SPDX-License-Identifier: Apache-2.0
// Device's interrupts: VFIO_DEVICE_SET_IRQS in its several meanings.
#include <fmt/format.h>

#include <cstring>
#include <postern/device.hpp>
#include <vector>

#include "device/device_io.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

// A struct vfio_irq_set with room for the eventfds behind it.
class IrqSet {
 public:
  IrqSet(std::uint32_t index, std::uint32_t flags, std::uint32_t first, std::uint32_t count, std::size_t eventfds = 0)
      : words_((sizeof(vfio_irq_set) + eventfds * sizeof(std::int32_t) + 3) / 4) {
    set() = {.argsz = static_cast<std::uint32_t>(words_.size() * 4),
             .flags = flags,
             .index = index,
             .start = first,
             .count = count};
  }
  [[nodiscard]] vfio_irq_set& set() noexcept { return *reinterpret_cast<vfio_irq_set*>(words_.data()); }
  void put(std::size_t place, std::int32_t eventfd) noexcept { std::memcpy(set().data + place * 4, &eventfd, 4); }

 private:
  std::vector<std::uint32_t> words_;
};

}  // namespace

Result<const Interrupt*> Device::find_interrupt(std::uint32_t index) const {
  if (!io_) return closed(vfio::device_set_irqs.symbol);
  if (index < interrupts_.size() && interrupts_[index].count > 0) return &interrupts_[index];
  return call_failure(vfio::device_set_irqs.symbol, {.result = -ENODEV,
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
    return call_failure(vfio::device_set_irqs.symbol, std::move(what));
  }
  if (first > 0 && !interrupt.resizable) {
    what.result = -EOPNOTSUPP;
    what.reason = "vectors of this kind cannot be added to those that are on (VFIO_IRQ_INFO_NORESIZE)";
    what.remedy = "turn them off, then turn all that are wanted on in one call";
    return call_failure(vfio::device_set_irqs.symbol, std::move(what));
  }
  IrqSet irqs(index, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER, first,
              static_cast<std::uint32_t>(events.size()), events.size());
  for (std::size_t i = 0; i < events.size(); ++i) irqs.put(i, events[i].fd());
  const int result = io_->set_irqs(irqs.set());
  if (result == 0) return {};
  // vfio_msi_enable answers how many vectors it could have had instead of an errno.
  what.result = result > 0 ? -ENOSPC : result;
  if (result > 0) what.reason = fmt::format("the host has only {} vectors left for it", result);
  if (result == -EINVAL) what.reason = "another kind of interrupt is on: INTx, MSI and MSI-X exclude each other";
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

Result<void> Device::act_on_interrupt(std::uint32_t index, std::uint32_t action, std::uint32_t first,
                                      std::uint32_t count) const {
  auto found = find_interrupt(index);
  if (!found) return failure_of(found);
  IrqSet irqs(index, VFIO_IRQ_SET_DATA_NONE | action, first, count);
  const int result = io_->set_irqs(irqs.set());
  if (result >= 0) return {};
  return call_failure(
      vfio::device_set_irqs.symbol,
      {.result = result, .object = fmt::format("{} interrupt {} vectors {}+{}", name_, index, first, count)});
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
