// SPDX-License-Identifier: Apache-2.0
// ClientInterrupts: SET_IRQS in terms of interrupt sets.
#include "vfio_user/server/client_interrupts.hpp"

#include <linux/vfio.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace postern::vfio_user {
namespace {

int errno_of(const Result<void>& done) { return done ? 0 : done.error().code(); }

// Calls change(vector), which returns 0 or an errno, for each vector of the request; stops at a failure.
template <typename Change>
int for_each_vector(const DeviceSetIrqs& request, Change change) {
  for (std::uint32_t i = 0; i < request.body.count; ++i) {
    if (request.data == IrqData::boolean && request.booleans[i] == std::byte{0}) continue;
    if (const int failed = change(request.body.start + i); failed != 0) return failed;
  }
  return 0;
}

// The eventfds as vectors see them; none at all stands for vectors without one.
std::vector<EventRef> events_of(const std::vector<Fd>& eventfds, std::uint32_t count) {
  std::vector<EventRef> events(count);
  std::transform(eventfds.begin(), eventfds.end(), events.begin(),
                 [](const Fd& eventfd) { return EventRef::of_fd(eventfd.get()); });
  return events;
}

}  // namespace

int ClientInterrupts::set(const DeviceSetIrqs& request, std::vector<Fd> eventfds) {
  const IrqSetBody& body = request.body;
  const auto interrupts = device_.interrupts();
  if (body.index >= interrupts.size() || body.start + body.count > interrupts[body.index].count) return EINVAL;
  if (request.action != IrqAction::trigger) return change_mask(request, std::move(eventfds));
  if (request.data == IrqData::eventfd) return set_eventfds(request, std::move(eventfds));
  return body.count == 0 ? disable(body.index) : trigger(request);
}

int ClientInterrupts::set_eventfds(const DeviceSetIrqs& request, std::vector<Fd> eventfds) {
  const IrqSetBody& body = request.body;
  std::vector<EventRef> events = events_of(eventfds, body.count);
  const auto found = on_.find(body.index);
  const bool is_on = found != on_.end();
  const bool is_notice = body.index >= VFIO_PCI_ERR_IRQ_INDEX && device_.is_pci();
  if (!is_on && eventfds.empty() && is_notice) return 0;  // off, and to be off
  Interrupts fresh;
  Interrupts& interrupts = is_on ? found->second : fresh;
  // Before the kernel is asked, since memory may run out here.
  if (interrupts.eventfds.size() < body.start + body.count) interrupts.eventfds.resize(body.start + body.count);
  if (is_on) {
    if (const int failed = errno_of(interrupts.set->set(body.start, events)); failed != 0) return failed;
  } else {
    events.insert(events.begin(), body.start, EventRef());
    auto set = InterruptSet::enable(device_, body.index, events);
    if (!set) return set.error().code();
    interrupts.set.emplace(std::move(*set));
  }
  for (std::uint32_t i = 0; i < body.count; ++i)
    interrupts.eventfds[body.start + i] = eventfds.empty() ? Fd() : std::move(eventfds[i]);
  if (!is_on) on_.emplace(body.index, std::move(fresh));
  return 0;
}

int ClientInterrupts::disable(std::uint32_t index) {
  const auto found = on_.find(index);
  if (found == on_.end()) return 0;
  if (const int failed = errno_of(found->second.set->disable()); failed != 0) return failed;
  on_.erase(found);
  return 0;
}

int ClientInterrupts::trigger(const DeviceSetIrqs& request) {
  const auto found = on_.find(request.body.index);
  if (found == on_.end()) return EINVAL;
  return for_each_vector(request, [&](std::uint32_t vector) { return errno_of(found->second.set->trigger(vector)); });
}

int ClientInterrupts::change_mask(const DeviceSetIrqs& request, std::vector<Fd> eventfds) {
  const bool masks = request.action == IrqAction::mask;
  if (request.data != IrqData::eventfd) {
    return for_each_vector(request, [&](std::uint32_t vector) {
      return errno_of(masks ? device_.mask_interrupt(request.body.index, vector)
                            : device_.unmask_interrupt(request.body.index, vector));
    });
  }
  if (masks) return ENOTTY;
  const auto found = on_.find(request.body.index);
  if (found == on_.end()) return EINVAL;
  Fd unmask = eventfds.empty() ? Fd() : std::move(eventfds.front());
  const EventRef event = unmask ? EventRef::of_fd(unmask.get()) : EventRef();
  if (const int failed = errno_of(found->second.set->unmask_on(event)); failed != 0) return failed;
  found->second.unmask = std::move(unmask);
  return 0;
}

Result<void> ClientInterrupts::disable_all() {
  Result<void> first;
  for (auto& [index, interrupts] : on_) {
    auto done = interrupts.set->disable();
    if (!done && first) first = std::move(done);
  }
  on_.clear();
  return first;
}

}  // namespace postern::vfio_user
