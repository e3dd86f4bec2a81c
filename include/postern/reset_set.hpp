// SPDX-License-Identifier: Apache-2.0
// ResetSet: the PCI functions that one hot reset of a slot or bus resets together, whose they are, and that reset.
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

struct ResetMember {
  PciAddress address;
  std::optional<std::string> driver;       // the driver it is bound to, if any
  bool is_vfio = false;                    // which gives it to user space through VFIO
  std::optional<GroupId> group;            // missing: it is in none
  std::optional<std::uint32_t> device_id;  // in this process's iommufd, where it is attached there
  std::string obstacle;  // what is in the way where it is not ours: "bound to nvme", "bound to no driver"

  [[nodiscard]] bool ours() const noexcept { return obstacle.empty(); }
};

// The kernel resets a slot or bus only for a process that shows that all of it is its own: every function is bound to a
// VFIO driver, and in the groups that it opened (type1, spapr) or in groups of its iommufd (iommufd). The set is what
// was so when it was asked for; the kernel looks again when it resets. Borrows the devices: they must stay where they
// are, and be attached, for as long as it is used. Thread rules: one thread at a time, and no other uses the devices
// while they are reset.
class POSTERN_API ResetSet {
 public:
  // What a hot reset of this device resets. `lent`: further attached devices, whose groups are proof as the device's
  // own is; without a meaning for iommufd, whose kernel side knows what is attached. Kernel:
  // VFIO_DEVICE_GET_PCI_HOT_RESET_INFO. Errors: EINVAL (no PCI device), ENODEV (neither its slot nor its bus can be
  // reset, as on a root bus), EPERM (one of them is in no IOMMU group), EAGAIN or ENOSPC (devices kept coming and
  // going), EPROTO (the kernel's answer makes no sense), those of the ioctl.
  [[nodiscard]] static Result<ResetSet> of(const Device& device, std::span<const Device* const> lent = {});

  // The device itself among them, by address.
  [[nodiscard]] std::span<const ResetMember> members() const noexcept { return members_; }
  [[nodiscard]] bool complete() const noexcept;

  // Resets all of it; it may take seconds. Every member is as after power-on then: its registers and what it was doing
  // are gone, and its driver starts anew and sets its interrupts up again. The kernel restores config space as it
  // found it; mappings stay, in every container. Meanwhile the BARs are out of reach: an access waits until it is over,
  // and a read() or write() gives EIO where the device's memory is off. Kernel: VFIO_DEVICE_PCI_HOT_RESET.
  // Errors: EPERM (the set is not complete: every member that is missing is named with what is in the way, and the
  // kernel is not asked), EBUSY or EAGAIN (one of them is being accessed), EINVAL or ENODEV (the set has changed),
  // ENOTTY (it was reset, but a device did not come back), EBADF (the device was detached), those of the ioctl.
  [[nodiscard]] Result<void> reset() const;

 private:
  explicit ResetSet(const Device& device) : device_(&device) {}
  [[nodiscard]] std::vector<const Group*> held_groups() const;
  [[nodiscard]] tl::unexpected<Error> refuse_incomplete() const;

  const Device* device_;
  std::vector<const Device*> lent_;
  std::vector<ResetMember> members_;
};

}  // namespace postern
