// SPDX-License-Identifier: Apache-2.0
// Ioeventfd: a register that the kernel writes when an event is signalled.
#pragma once

#include <cstdint>
#include <memory>
#include <postern/event.hpp>
#include <postern/export.hpp>
#include <postern/result.hpp>

namespace postern {

class Device;

/// A write of a register. Plain data.
struct RegisterWrite {
  std::uint32_t region = 0;  ///< on PCI a BAR, 0..5
  std::uint64_t offset = 0;  ///< bytes from the start of the region; naturally aligned
  unsigned width = 4;        ///< bytes: 1, 2, 4 or 8
  std::uint64_t value = 0;   ///< fits the width; in the host's byte order, written as little-endian
};

/// Lets the kernel write a value to a register whenever an event is signalled (VFIO_DEVICE_IOEVENTFD, Linux 4.17),
/// until it is destroyed. Together with KVM_IOEVENTFD of the same event, a guest's write to a doorbell reaches the
/// device without the VMM. The kernel takes the signals, so do not wait for the event. It writes nothing while the
/// device's memory decoding is off. Linux has room for 1000 of them for each device.
/// As an InterruptSet, it is safe to destroy after its device was detached or moved, and in a child of fork(2).
/// Thread safety: as std::unique_ptr; different ones are independent.
class POSTERN_API Ioeventfd {
 public:
  Ioeventfd(Ioeventfd&&) noexcept;             ///< moves
  Ioeventfd& operator=(Ioeventfd&&) noexcept;  ///< removes its own, and moves
  ~Ioeventfd();                                ///< removes it; only logs errors

  /// Adds one. The same event may be given for several writes. The library refuses an unaligned offset and a value
  /// wider than the register, which the kernel takes. Errors: EINVAL (these, no event, or another width), EBADF (a
  /// moved-from Event, or not open), ENODEV (no such region), ERANGE or EOVERFLOW (past its end), those of the ioctl:
  /// ENOTTY (the kernel or device has none), EINVAL (no register in a BAR, or part of the MSI-X table; no eventfd; or
  /// the kernel cannot write 8 bytes), EEXIST (the same write was added), ENOSPC (too many).
  [[nodiscard]] static Result<Ioeventfd> add(const Device& device, const RegisterWrite& write, EventRef event);

  /// Removes it and reports errors. Errors: EBADF (removed, moved from, or the device was detached), those of the
  /// ioctl.
  [[nodiscard]] Result<void> remove();

 private:
  struct POSTERN_LOCAL State;
  explicit Ioeventfd(std::unique_ptr<State> state) noexcept;
  std::unique_ptr<State> state_;
};

}  // namespace postern
