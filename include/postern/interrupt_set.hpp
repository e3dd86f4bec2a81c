// SPDX-License-Identifier: Apache-2.0
// InterruptSet: the vectors of one kind of interrupt that are on, as an object that turns them off.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/event.hpp>
#include <postern/export.hpp>
#include <postern/result.hpp>
#include <span>

namespace postern {

class Device;

/// The vectors of one kind of interrupt (an index of VFIO_DEVICE_SET_IRQS) of a device: turned on by enable(), changed
/// one by one, and turned off by the destructor, which only logs errors. Made for VMMs, whose guests turn vectors on
/// and off in any order.
///
/// Events belong to the caller and must stay open while their vectors are on: if vectors must be turned off and on
/// again, the set passes their descriptors to the kernel once more.
///
/// A call that fails changes nothing: vectors that the kernel has turned off on the way (it turns off those of the same
/// block, and the one that was to change) are turned on again. If that fails, too, the error has a cause for each of
/// them, and has_event() tells what is left. An interrupt that the device sends meanwhile is lost; trigger() makes up
/// for one.
///
/// On kernels that cannot add vectors (VFIO_IRQ_INFO_NORESIZE: MSI; MSI-X before Linux 6.5 and on hosts whose interrupt
/// controllers cannot), setting one beyond those given to enable(), or added since, turns all off and on again. To
/// avoid that, give enable() as many events as there will be vectors; an EventRef that is none leaves its vector off.
///
/// The Kernel must outlive the set. After Device::detach() all functions that return a Result fail with EBADF, and
/// destroying the set does nothing, since closing a device turns its interrupts off. The Device may be moved. A child
/// of fork(2) may only destroy its copy, which changes nothing.
/// Thread safety: any thread; concurrent calls wait for each other. Moving and destroying need the set alone.
class POSTERN_API InterruptSet {
 public:
  InterruptSet(InterruptSet&&) noexcept;             ///< moves
  InterruptSet& operator=(InterruptSet&&) noexcept;  ///< turns its vectors off, and moves
  ~InterruptSet();

  /// Turns the interrupt with this index on, with vectors 0, 1, ... signalling these events; an EventRef that is none
  /// leaves its vector off. Without any event, the interrupt is on without a vector: MSI-X as a guest enables it before
  /// it unmasks a vector. Vectors of this index that Device::enable_interrupts() turned on are turned off first. Until
  /// the set is gone, Device's functions that enable and disable refuse this index with EBUSY. Errors: ENODEV (no such
  /// interrupt), ERANGE (more events than vectors), EBADF (a moved-from Event, a descriptor that is not open), EBUSY
  /// (there is a set for this index), ENOSPC (the host has fewer vectors left), those of VFIO_DEVICE_SET_IRQS (EINVAL:
  /// another of INTx, MSI and MSI-X is on; or a descriptor is no eventfd).
  [[nodiscard]] static Result<InterruptSet> enable(const Device& device, std::uint32_t index,
                                                   std::span<const EventRef> events = {});

  [[nodiscard]] std::uint32_t index() const noexcept;  ///< VFIO's index; of a moved-from set, 0
  [[nodiscard]] std::uint32_t count() const noexcept;  ///< vectors that the device has; of a moved-from set, 0
  /// Whether a vector is on, with an event.
  [[nodiscard]] bool has_event(std::uint32_t vector) const noexcept;

  /// Turns a vector on, or lets it signal another event. Errors: ERANGE (no such vector), EINVAL (no event is given),
  /// others as enable().
  [[nodiscard]] Result<void> set(std::uint32_t vector, EventRef event);
  /// Changes vectors first, first+1, ... at once: an EventRef that is none turns its vector off. Errors: as enable().
  [[nodiscard]] Result<void> set(std::uint32_t first, std::span<const EventRef> events);
  /// Turns a vector off; succeeds if it is. INTx stays on without an event. Errors: ERANGE, those of
  /// VFIO_DEVICE_SET_IRQS.
  [[nodiscard]] Result<void> clear(std::uint32_t vector);

  /// Lets an event unmask INTx in the kernel (VFIO_IRQ_SET_ACTION_UNMASK with VFIO_IRQ_SET_DATA_EVENTFD), for KVM's
  /// resample event (KVM_IRQFD_FLAG_RESAMPLE): the kernel takes its signals, so do not wait for it. Replaces the event
  /// given before; none removes it. Errors: ENOTTY (not INTx), EBADF (a moved-from Event), EINVAL (no eventfd), others
  /// of VFIO_DEVICE_SET_IRQS.
  [[nodiscard]] Result<void> unmask_on(EventRef event);

  /// Signals the event of a vector, as if the device had sent that interrupt (VFIO_IRQ_SET_DATA_NONE with
  /// VFIO_IRQ_SET_ACTION_TRIGGER). Does nothing if the vector is off. Errors: ERANGE (no such vector), those of
  /// VFIO_DEVICE_SET_IRQS.
  [[nodiscard]] Result<void> trigger(std::uint32_t vector) const;
  /// The same for each vector 0, 1, ... whose value is true (VFIO_IRQ_SET_DATA_BOOL). Errors: as above.
  [[nodiscard]] Result<void> trigger(std::span<const bool> vectors) const;

  /// Turns all vectors off and reports errors; succeeds if they are. The set is then as after Device::detach(). Errors:
  /// those of VFIO_DEVICE_SET_IRQS.
  [[nodiscard]] Result<void> disable();

 private:
  class POSTERN_LOCAL State;
  explicit InterruptSet(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace postern
