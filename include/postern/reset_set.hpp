// SPDX-License-Identifier: Apache-2.0
// ResetSet: the PCI functions that a hot reset of a slot or bus affects, who owns them, and the reset itself.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/device.hpp>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/pci_address.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern {

class Group;

/// An affected function.
struct ResetMember {
  PciAddress address;                      ///< where it is
  std::optional<std::string> driver;       ///< bound driver, if any
  bool is_vfio = false;                    ///< whether that is a VFIO driver
  std::optional<GroupId> group;            ///< missing: in no group
  std::optional<std::uint32_t> device_id;  ///< id in this process's iommufd, if attached there
  std::string blocker;                     ///< why this process does not own it: "bound to nvme"; empty if it does

  /// Whether this process owns the function.
  [[nodiscard]] bool owned() const noexcept { return blocker.empty(); }
};

/// The functions that a hot reset affects. The kernel resets a slot or bus only if the caller proves that it owns every
/// affected device: each is bound to a VFIO driver, and is in a group that the caller opened (type1, spapr) or in a
/// group of its iommufd (iommufd). The set is a snapshot; the kernel checks again when it resets. Borrows the devices:
/// they must not be moved or detached while the set is used. Thread safety: one thread at a time; no other thread may
/// use the devices during the reset.
class POSTERN_API ResetSet {
 public:
  /// Returns the functions that a hot reset of this device affects. `also_owned`: other attached devices whose groups
  /// are passed as proof of ownership. Ignored by iommufd, which already knows them. Kernel:
  /// VFIO_DEVICE_GET_PCI_HOT_RESET_INFO. Errors: EINVAL (not a PCI device), ENODEV (no slot or bus reset: the device is
  /// on a root bus, for instance), EPERM (a function is in no IOMMU group), EAGAIN or ENOSPC (functions kept appearing
  /// and disappearing), EPROTO (invalid answer from the kernel), EBADF (the device was detached), those of the ioctl.
  [[nodiscard]] static Result<ResetSet> of(const Device& device, std::span<const Device* const> also_owned = {});

  /// The affected functions, including the device itself, sorted by address.
  [[nodiscard]] std::span<const ResetMember> members() const noexcept { return members_; }
  /// Whether this process owns all of them.
  [[nodiscard]] bool complete() const noexcept;

  /// Resets the slot or bus; may take seconds. Every member is then as after power-on: register contents and operations
  /// in progress are lost, and its driver must initialise it and enable its interrupts again. The kernel saves and
  /// restores config space; mappings stay, in every container. During the reset the BARs are inaccessible: accesses to
  /// a mapping wait, and read() or write() fails with EIO if memory decoding is off. Kernel: VFIO_DEVICE_PCI_HOT_RESET.
  /// Errors: EPERM (incomplete: every member not owned is named with the reason; the kernel is not called), EBUSY or
  /// EAGAIN (a member is being accessed), EINVAL or ENODEV (the set has changed), ENOTTY (reset, but a device did not
  /// come back), EIO (reset, but a borrowed device does not respond), EBADF (the device was detached), those of the
  /// ioctl.
  [[nodiscard]] Result<void> reset() const;

 private:
  explicit ResetSet(const Device& device) : device_(&device) {}
  [[nodiscard]] std::vector<const Group*> held_groups() const;
  [[nodiscard]] tl::unexpected<Error> refuse_incomplete() const;

  const Device* device_;
  std::vector<const Device*> also_owned_;
  std::vector<ResetMember> members_;
};

}  // namespace postern
