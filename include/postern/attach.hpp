// SPDX-License-Identifier: Apache-2.0
// attach(): attaches a host device to a container and returns the Device that drives it.
#pragma once

#include <memory>
#include <optional>
#include <postern/backend.hpp>
#include <postern/container.hpp>
#include <postern/device.hpp>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/kvm.hpp>
#include <postern/pci_address.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <postern/result.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace postern {

/// Which container attach() uses, and how it opens the device.
struct AttachOptions {
  /// Backend for a new container, see choose_backend(). Other than "auto", it also restricts `join` to containers of
  /// that backend, and must be that of `container`. "auto" also tries the next backend if a node cannot be opened that
  /// the probe did not open (a cdev that a device cgroup forbids).
  std::string_view backend = "auto";
  /// Container to join, opened on the same Kernel; null: open a new one, or join one of `join`.
  std::shared_ptr<Container> container = {};
  /// Existing containers that map the same memory, none null, opened on the same Kernel. They are tried in order, and
  /// the first that accepts the device is used. If none does, a new container is opened, and the mappings and DMA
  /// windows of the first of them are replicated into it: with iommufd as copies, whose pages count once.
  std::vector<std::shared_ptr<Container>> join = {};
  /// If not null, receives one error for each container of `join` that refused the device.
  std::vector<Error>* refusals = nullptr;

  ContainerOptions container_options = {};  ///< for a new container

  /// VF token: required to open a virtual function whose physical function is bound to vfio-pci; set on such a physical
  /// function when it is opened. HostDevice::vf_token takes precedence.
  std::optional<VfToken> vf_token = {};

  /// KVM's device of the VM that gets the device; null: none. KVM is told of the device's cdev or group before the
  /// device is opened, and that it has gone when it is detached, or the last device of its group. A file that was added
  /// before (KVM answers EEXIST) is left to whoever added it. The Device holds the pointer.
  std::shared_ptr<const KvmVfioDevice> kvm = {};
};

/// Attaches a device that is already bound to a VFIO driver (see bind_to_driver()). On an error, nothing is left open
/// or mapped; a descriptor that was given (HostDevice::fd) can be used again. Kernel, with type1 and spapr: opens the
/// group's node, VFIO_GROUP_SET_CONTAINER, VFIO_SET_IOMMU for a container's first group, VFIO_GROUP_GET_DEVICE_FD; with
/// iommufd: opens the cdev, VFIO_DEVICE_BIND_IOMMUFD, IOMMU_HWPT_ALLOC unless a page table of the container suits the
/// device, VFIO_DEVICE_ATTACH_IOMMUFD_PT. Errors: those of choose_backend(); ENODEV (ErrorKind::not_bound: bound to the
/// wrong driver; no_iommu: in no IOMMU group), ENOENT (ErrorKind::not_found: the host has no such device), ESTALE
/// (ErrorKind::stale: it was bound after `device` was read: read it again), EINVAL (the options contradict each other,
/// or a container is of another Kernel), EPERM (group_not_viable: all blocking members are named; the group is in use
/// by another process; or interrupts_not_isolated), EACCES (the device node cannot be opened: the error gives its path
/// and mode; or the device requires another VF token), EBUSY (the device is in use; VFIO_DEVICE_BIND_IOMMUFD reports
/// this as EINVAL, too), ESTALE (the cdev belongs to another device), EINVAL or EADDRINUSE (cannot_share: its IOMMU
/// does not support the existing mappings; on POWER also EPERM or EBUSY), EINVAL or EBUSY (cannot_share: another device
/// of its group is in another container of this process), those of Container::map() (the mappings cannot be replicated
/// into a new container). If containers of `join` refused the device, causes() has the error of each. Of a descriptor
/// that was given: EBADF (not open), EINVAL (it is for another backend, of another device, or bound to another
/// iommufd), EBUSY (its group is in a container, or its device attached); EBADF or EINVAL of KVM_SET_DEVICE_ATTR.
/// Thread safety: uses the containers to be joined, which one thread at a time may use. Several threads may attach to
/// new containers concurrently.
[[nodiscard]] POSTERN_API Result<Device> attach(Kernel& kernel, const HostDevice& device,
                                                const AttachOptions& options = {});

/// Attaches several devices to one container, all or none, and returns them in the order given. Opens them at once,
/// each in a thread of its own: opening a device resets it, which takes a tenth of a second or more. A new container
/// has the backend that is chosen for the first device; AttachOptions::join and refusals are not used. On an error, no
/// device is attached. Kernel: as attach(). Errors: those of attach(); EINVAL (a device is given twice), EBUSY (one is
/// attached to this container already). Thread safety: as attach().
[[nodiscard]] POSTERN_API Result<std::vector<Device>> attach_all(Kernel& kernel, std::span<const HostDevice> devices,
                                                                 const AttachOptions& options = {});

/// Moves an attached device to another container without closing it. Its state, its interrupts, its mapped BARs and
/// what KVM knows of it stay; its DMA reaches what `container` maps from then on, and nothing else. Both must be
/// containers of iommufd with one open /dev/iommu: opened on one Kernel, both without ContainerOptions::fd or both with
/// the same. A function of its own beside attach(), since it changes two containers as much as the device. Kernel:
/// VFIO_DEVICE_ATTACH_IOMMUFD_PT of an attached device (Linux 6.6), which replaces its page table in one step: the
/// device is in one of the two containers at any time. Whether its DMA goes on meanwhile depends on the IOMMU: pause a
/// device that cannot bear a fault. Pages written before are dirty in the old container, if it tracks, and pages
/// written after in the new one, where all are dirty once if the device logs its own writes. On an error the device
/// stays in the old container, and works, unless undoing the move fails, too: the error then says so, and
/// Device::container() is the new one.
/// Errors: EINVAL (`container` is null, has the device already, or has another Kernel or open /dev/iommu), EOPNOTSUPP
/// (type1 and spapr; another backend; a mediated device; the tracker there was started for a source that this device
/// does not have), EBUSY (another device of its group is in the old container: the kernel would move both; or dirty
/// pages are tracked by smaller pages than with this device), EINVAL or EADDRINUSE (cannot_share: the mappings there do
/// not suit its IOMMU), EBADF (the container was closed, or the device detached), ESTALE (in a child of fork(2)), those
/// of the ioctls. Thread safety: uses both containers, each for one thread at a time. Other threads may use the device
/// meanwhile, but not Device::container().
[[nodiscard]] POSTERN_API Result<void> move_device(Device& device, const std::shared_ptr<Container>& container);

/// Finds a PCI function by its address ("0000:00:01.0"), attaches it and opens it as a PciDevice. Errors: those of
/// PciAddress::parse(), find_pci_function(), attach() and PciDevice::open(). Thread safety: as attach().
[[nodiscard]] POSTERN_API Result<PciDevice> attach_pci(Kernel& kernel, std::string_view address,
                                                       const AttachOptions& options = {});
/// As above, of an address.
[[nodiscard]] POSTERN_API Result<PciDevice> attach_pci(Kernel& kernel, PciAddress address,
                                                       const AttachOptions& options = {});
/// As above, of a function that was read after it was bound. Errors: those of attach() and PciDevice::open().
[[nodiscard]] POSTERN_API Result<PciDevice> attach_pci(Kernel& kernel, const PciFunction& function,
                                                       const AttachOptions& options = {});

}  // namespace postern
