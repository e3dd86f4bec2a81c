// SPDX-License-Identifier: Apache-2.0
// InterruptSet: vectors changed one by one, and put back where the kernel drops them on the way.
#include <postern/interrupt_set.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <postern/device.hpp>
#include <vector>

#include "base/log.hpp"
#include "base/maker.hpp"
#include "base/remedy.hpp"
#include "device/device_io.hpp"
#include "device/irqs.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

using Eventfds = std::vector<std::int32_t>;
constexpr std::uint32_t trigger_action = VFIO_IRQ_SET_ACTION_TRIGGER;

// The eventfds of these; `object` with the vector that has none in an error.
Result<Eventfds> eventfds_of(const std::string& object, std::uint32_t first, std::span<const EventRef> events) {
  Eventfds eventfds;
  for (const EventRef event : events) {
    if (!event.is_none() && !event.is_valid()) {
      return refusal({.result = -EBADF,
                      .kind = ErrorKind::invalid_argument,
                      .object = object,
                      .reason = fmt::format("the event of vector {} is a moved-from Event or a negative descriptor",
                                            first + eventfds.size())});
    }
    eventfds.push_back(event.is_none() ? no_eventfd : event.fd());
  }
  return eventfds;
}

}  // namespace

class InterruptSet::State {
 public:
  State(std::weak_ptr<DeviceIo> io, std::string object, const Interrupt& interrupt)
      : io_(std::move(io)), object_(std::move(object)), interrupt_(interrupt) {}
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    if (!maker_.is_this_process()) return;
    log_failure_of([this] { return turn_off(); });
    const auto io = io_.lock();
    if (io && is_claimed_) io->claimed_interrupts.release(interrupt_.index);
  }

  [[nodiscard]] const Interrupt& interrupt() const noexcept { return interrupt_; }
  [[nodiscard]] const std::string& object() const noexcept { return object_; }
  [[nodiscard]] bool has_event(std::uint32_t vector) const {
    const std::lock_guard lock(mutex_);
    return vector < eventfds_.size() && eventfds_[vector] != no_eventfd && !io_.expired();
  }

  [[nodiscard]] Result<void> turn_on(std::span<const EventRef> events);
  [[nodiscard]] Result<void> turn_off();
  [[nodiscard]] Result<void> change(std::uint32_t first, std::span<const EventRef> events);
  [[nodiscard]] Result<void> unmask_on(EventRef event);
  [[nodiscard]] Result<void> trigger(std::uint32_t first, std::span<const std::uint8_t> wanted);

 private:
  [[nodiscard]] Result<std::shared_ptr<DeviceIo>> io() const;
  [[nodiscard]] int set_eventfds(DeviceIo& io, std::uint32_t first, std::span<const std::int32_t> eventfds) const {
    return set_irq_eventfds(io, trigger_action, interrupt_.index, first, eventfds);
  }
  [[nodiscard]] IrqEventfds all_on(const Eventfds& eventfds) const;
  [[nodiscard]] int turn_on(DeviceIo& io, IrqEventfds& all);
  [[nodiscard]] tl::unexpected<Error> put_back(DeviceIo& io, std::uint32_t first, std::size_t count, const Error& why);
  [[nodiscard]] Result<void> turn_on_again(DeviceIo& io, Eventfds wanted, CallFailed what);

  std::weak_ptr<DeviceIo> io_;
  std::string object_;  // "0000:00:01.0 MSI-X"
  Interrupt interrupt_;
  Maker maker_;
  mutable std::mutex mutex_;
  bool is_claimed_ = false;
  bool is_on_ = false;
  Eventfds eventfds_;          // by vector
  std::size_t allocated_ = 0;  // how many vectors it was turned on with
  std::int32_t unmask_ = no_eventfd;
};

Result<std::shared_ptr<DeviceIo>> InterruptSet::State::io() const {
  auto io = io_.lock();
  if (io && is_claimed_) return io;
  return refusal({.result = -EBADF,
                  .object = object_,
                  .reason = io ? "the interrupts were disabled" : "the device was detached",
                  .remedy = io ? RemedyCode::enable_interrupts_again : RemedyCode::attach_again});
}

// Turns the interrupt on with at least one vector: the kernel takes no fewer (vfio_pci_set_msi_trigger).
IrqEventfds InterruptSet::State::all_on(const Eventfds& eventfds) const {
  static constexpr std::array none = {no_eventfd};
  return irq_eventfds(trigger_action, interrupt_.index, 0,
                      eventfds.empty() ? std::span<const std::int32_t>(none) : eventfds);
}

int InterruptSet::State::turn_on(DeviceIo& io, IrqEventfds& all) {
  const int result = io.set_irqs(all.head());
  is_on_ = result == 0;
  if (is_on_) allocated_ = all.head().count;
  return result;
}

Result<void> InterruptSet::State::turn_on(std::span<const EventRef> events) {
  CallFailed what{.object = object_};
  if (!events.empty()) what.object += vectors_text(interrupt_, 0, events.size());
  POSTERN_TRY(check_vectors(interrupt_, what.object, 0, events.size()));
  auto eventfds = POSTERN_TRY(eventfds_of(what.object, 0, events));
  auto all = all_on(eventfds);
  const auto io = io_.lock();
  if (!io->claimed_interrupts.take(interrupt_.index)) {
    what.result = -EBUSY;
    what.reason = "another InterruptSet has this kind of interrupt";
    what.remedy = RemedyCode::use_interrupt_set;
    return refusal(std::move(what));
  }
  is_claimed_ = true;
  what.result = turn_irq_off(*io, interrupt_.index);
  if (what.result < 0) return call_failure(vfio::device_set_irqs.symbol, std::move(what));
  what.result = turn_on(*io, all);
  if (what.result != 0) return eventfds_failure(*io, std::move(what), true, 0, eventfds);
  eventfds_ = std::move(eventfds);
  return {};
}

Result<void> InterruptSet::State::turn_off() {
  const std::lock_guard lock(mutex_);
  const auto io = io_.lock();
  if (!io || !is_claimed_) return {};
  const int result = is_on_ ? turn_irq_off(*io, interrupt_.index) : 0;
  if (result < 0) {
    return call_failure(vfio::device_set_irqs.symbol,
                        {.result = result, .object = object_ + vectors_text(interrupt_, 0, interrupt_.count)});
  }
  eventfds_.clear();
  is_claimed_ = false;
  io->claimed_interrupts.release(interrupt_.index);
  return {};
}

Result<void> InterruptSet::State::change(std::uint32_t first, std::span<const EventRef> events) {
  const std::lock_guard lock(mutex_);
  const auto io = POSTERN_TRY(this->io());
  if (events.empty()) return {};
  CallFailed what{.object = object_ + vectors_text(interrupt_, first, events.size())};
  POSTERN_TRY(check_vectors(interrupt_, what.object, first, events.size()));
  const auto eventfds = POSTERN_TRY(eventfds_of(what.object, first, events));
  const std::size_t end = first + eventfds.size();
  Eventfds wanted = eventfds_;
  if (wanted.size() < end) wanted.resize(end, no_eventfd);
  std::copy(eventfds.begin(), eventfds.end(), wanted.begin() + first);
  while (!wanted.empty() && wanted.back() == no_eventfd) wanted.pop_back();

  std::span<const std::int32_t> block = eventfds;
  if (!interrupt_.resizable) {
    if (wanted.size() > allocated_) return turn_on_again(*io, std::move(wanted), std::move(what));
    // Those that the kernel has not allocated are off already, and EINVAL before Linux 6.5 (vfio_msi_set_block).
    block = block.first(std::min(end, std::max<std::size_t>(allocated_, first)) - first);
  }
  if (!is_on_) return turn_on_again(*io, std::move(wanted), std::move(what));
  what.result = block.empty() ? 0 : set_eventfds(*io, first, block);
  if (what.result == 0) {
    eventfds_ = std::move(wanted);
    return {};
  }
  const auto failed = eventfds_failure(*io, std::move(what), false, first, block);
  return put_back(*io, first, block.size(), failed.value());
}

// After a block that failed, the kernel has turned off those of its vectors that come before the one that failed, and
// that one itself (vfio_msi_set_block, vfio_msi_set_vector_signal). One by one: a descriptor that is no longer open
// would turn off the others of its block.
tl::unexpected<Error> InterruptSet::State::put_back(DeviceIo& io, std::uint32_t first, std::size_t count,
                                                    const Error& why) {
  Error::Details details = why.details();
  const std::size_t end = std::min(first + count, eventfds_.size());
  for (std::size_t vector = first; vector < end; ++vector) {
    const std::array before = {eventfds_[vector]};
    if (before[0] == no_eventfd) continue;
    const auto number = static_cast<std::uint32_t>(vector);
    const int result = set_eventfds(io, number, before);
    if (result == 0) continue;
    eventfds_[vector] = no_eventfd;
    CallFailed what{.result = result, .object = object_ + vectors_text(interrupt_, number, 1) + ", put back"};
    details.causes.push_back(eventfds_failure(io, std::move(what), false, number, before).value());
  }
  return failure(std::move(details));
}

// The vectors that the kernel has are only those that the interrupt was turned on with (VFIO_IRQ_INFO_NORESIZE). All
// that needs memory is made before any is off.
Result<void> InterruptSet::State::turn_on_again(DeviceIo& io, Eventfds wanted, CallFailed what) {
  Eventfds before = eventfds_;
  before.resize(std::max<std::size_t>({allocated_, before.size(), 1}), no_eventfd);  // as many as there were
  auto all = all_on(wanted);
  auto as_many = all_on(Eventfds(before.size(), no_eventfd));
  if (is_on_) {
    what.result = turn_irq_off(io, interrupt_.index);
    if (what.result < 0) return call_failure(vfio::device_set_irqs.symbol, std::move(what));
    is_on_ = false;
  }
  what.result = turn_on(io, all);
  if (what.result == 0) {
    eventfds_ = std::move(wanted);
    return {};
  }
  const int result = turn_on(io, as_many);
  eventfds_ = result == 0 ? std::move(before) : Eventfds();
  const auto failed = eventfds_failure(io, std::move(what), true, 0, wanted);
  if (result == 0) return put_back(io, 0, eventfds_.size(), failed.value());
  Error::Details details = failed.value().details();
  CallFailed put{.result = result, .object = object_ + ", put back"};
  details.causes.push_back(eventfds_failure(io, std::move(put), true, 0, {}).value());
  return failure(std::move(details));
}

Result<void> InterruptSet::State::unmask_on(EventRef event) {
  const std::lock_guard lock(mutex_);
  const auto io = POSTERN_TRY(this->io());
  const auto wanted = POSTERN_TRY(eventfds_of(object_, 0, std::span(&event, 1)));
  const auto set = [&](std::int32_t eventfd) {
    return set_irq_eventfds(*io, VFIO_IRQ_SET_ACTION_UNMASK, interrupt_.index, 0, std::span(&eventfd, 1));
  };
  CallFailed what{.object = object_ + ", event that unmasks it"};
  // The kernel has one, and takes another only after that is gone (vfio_virqfd_enable).
  if (unmask_ != no_eventfd && wanted[0] != no_eventfd) {
    what.result = set(no_eventfd);
    if (what.result < 0) return call_failure(vfio::device_set_irqs.symbol, std::move(what));
  }
  what.result = set(wanted[0]);
  if (what.result >= 0) {
    unmask_ = wanted[0];
    return {};
  }
  if (what.result == -ENOTTY && !interrupt_.maskable) {
    what.reason = "VFIO does not mask interrupts of this kind (no VFIO_IRQ_INFO_MASKABLE)";
  }
  const auto failed = eventfds_failure(*io, std::move(what), false, 0, wanted);
  if (unmask_ != no_eventfd && wanted[0] != no_eventfd && set(unmask_) < 0) unmask_ = no_eventfd;
  return failed;
}

Result<void> InterruptSet::State::trigger(std::uint32_t first, std::span<const std::uint8_t> wanted) {
  const std::lock_guard lock(mutex_);
  const auto io = POSTERN_TRY(this->io());
  CallFailed what{.object = object_ + vectors_text(interrupt_, first, wanted.size())};
  POSTERN_TRY(check_vectors(interrupt_, what.object, first, wanted.size()));
  // The kernel says EINVAL of an error or request interrupt without an event (vfio_pci_set_ctx_trigger_single).
  bool is_any_on = false;
  for (std::size_t i = 0; i < wanted.size() && first + i < eventfds_.size(); ++i) {
    is_any_on = is_any_on || (wanted[i] != 0 && eventfds_[first + i] != no_eventfd);
  }
  if (!is_any_on) return {};
  what.result = wanted.size() == 1 && wanted[0] != 0
                    ? set_irq_none(*io, trigger_action, interrupt_.index, first, 1)
                    : set_irq_bools(*io, trigger_action, interrupt_.index, first, wanted);
  if (what.result >= 0) return {};
  return call_failure(vfio::device_set_irqs.symbol, std::move(what));
}

InterruptSet::InterruptSet(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
InterruptSet::InterruptSet(InterruptSet&&) noexcept = default;
InterruptSet& InterruptSet::operator=(InterruptSet&&) noexcept = default;
InterruptSet::~InterruptSet() = default;

namespace {

tl::unexpected<Error> no_set() {
  return refusal({.result = -EBADF, .object = "InterruptSet", .reason = "it was moved from"});
}

}  // namespace

Result<InterruptSet> InterruptSet::enable(const Device& device, std::uint32_t index, std::span<const EventRef> events) {
  auto found = POSTERN_TRY(device.find_interrupt(index));
  InterruptSet set(std::make_unique<State>(device.io_, interrupt_text(device.name(), device.is_pci(), index), *found));
  POSTERN_TRY(set.state_->turn_on(events));
  return set;
}

std::uint32_t InterruptSet::index() const noexcept { return state_ ? state_->interrupt().index : 0; }
std::uint32_t InterruptSet::count() const noexcept { return state_ ? state_->interrupt().count : 0; }
bool InterruptSet::has_event(std::uint32_t vector) const noexcept { return state_ && state_->has_event(vector); }

Result<void> InterruptSet::set(std::uint32_t vector, EventRef event) {
  if (state_ && event.is_none()) {
    return refusal({.result = -EINVAL,
                    .object = fmt::format("{}, vector {}", state_->object(), vector),
                    .reason = "no event is given",
                    .remedy = remedy<RemedyCode::turn_vectors_off>("clear()")});
  }
  return set(vector, std::span(&event, 1));
}

Result<void> InterruptSet::set(std::uint32_t first, std::span<const EventRef> events) {
  return state_ ? state_->change(first, events) : no_set();
}

Result<void> InterruptSet::clear(std::uint32_t vector) {
  const EventRef none;
  return set(vector, std::span(&none, 1));
}

Result<void> InterruptSet::unmask_on(EventRef event) { return state_ ? state_->unmask_on(event) : no_set(); }

Result<void> InterruptSet::trigger(std::uint32_t vector) const {
  constexpr std::uint8_t yes = 1;
  return state_ ? state_->trigger(vector, std::span(&yes, 1)) : no_set();
}

Result<void> InterruptSet::trigger(std::span<const bool> vectors) const {
  const std::vector<std::uint8_t> wanted(vectors.begin(), vectors.end());
  return state_ ? state_->trigger(0, wanted) : no_set();
}

Result<void> InterruptSet::disable() { return state_ ? state_->turn_off() : no_set(); }

}  // namespace postern
