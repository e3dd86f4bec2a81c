// SPDX-License-Identifier: Apache-2.0
// KvmVfioDevice: tells KVM which VFIO devices a virtual machine has.
#pragma once

#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

/// KVM's device for VFIO (KVM_DEV_TYPE_VFIO), of which a virtual machine has at most one. KVM uses the files added to
/// it to learn that a device was assigned and whether its DMA is coherent, and to give the VM to VFIO drivers that need
/// it (mediated devices, s390x).
///
/// Such a driver takes the VM when its device is opened: add a group before VFIO_GROUP_GET_DEVICE_FD, and a device node
/// (/dev/vfio/devices/vfioN, Linux 6.6) before VFIO_DEVICE_BIND_IOMMUFD. AttachOptions::kvm does so. For vfio-pci on
/// x86 and arm64, Device::fd() can be added after attach().
///
/// Owns KVM's descriptor. Closing it removes all files (before Linux 6.2 only the end of the VM does): keep it as long
/// as the VM has its devices. KVM keeps its own reference to each file. Thread safety: add() and remove() from any
/// thread; moving and destroying need it alone.
class POSTERN_API KvmVfioDevice {
 public:
  /// Creates the device in this VM, a descriptor of KVM_CREATE_VM, which is only used during the call. Kernel:
  /// KVM_CREATE_DEVICE. Errors: EBUSY (the VM has one: pass its descriptor to adopt()), ENODEV (KVM was built without
  /// CONFIG_KVM_VFIO), ENOTTY (not a VM), others of the ioctl.
  [[nodiscard]] static Result<KvmVfioDevice> create(Kernel& kernel, int vm);
  /// Takes over the descriptor of a device that somebody created before; dup(2) yours to keep it. Errors: EBADF
  /// (empty).
  [[nodiscard]] static Result<KvmVfioDevice> adopt(Fd device);

  /// Adds a group's or a device's descriptor. Kernel: KVM_SET_DEVICE_ATTR with KVM_DEV_VFIO_FILE_ADD. Errors: EEXIST
  /// (it was added), EBADF (not open), EINVAL (neither a group nor a device), ENXIO (the descriptor given to adopt() is
  /// not KVM's device for VFIO), others of the ioctl.
  [[nodiscard]] Result<void> add(int file) const;
  /// Removes a descriptor that was added: of a group after its devices are closed, of a cdev before it is. Kernel:
  /// KVM_DEV_VFIO_FILE_DEL. Errors: ENOENT (it was not added), EBADF (not open), others of the ioctl.
  [[nodiscard]] Result<void> remove(int file) const;

  [[nodiscard]] int fd() const noexcept { return device_.get(); }  ///< the descriptor, owned by this object

 private:
  explicit KvmVfioDevice(Fd device) noexcept : device_(std::move(device)) {}
  [[nodiscard]] Result<void> change(unsigned long attribute, int file) const;
  Fd device_;
};

}  // namespace postern
