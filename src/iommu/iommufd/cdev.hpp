// SPDX-License-Identifier: Apache-2.0
// A device's cdev, /dev/vfio/devices/vfioN: finds it, opens it, and binds it to an iommufd.
#pragma once

#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>

#include "iommu/iommufd/given_fd_use.hpp"
#include "iommu/iommufd/iommufd.hpp"
#include "kernel/kvm_file.hpp"

namespace postern::iommufd {

// A device that is bound to an iommufd; closing the last fd unbinds it.
struct BoundDevice {
  NodeFd fd;
  ObjectId id = 0;
  bool is_told = false;   // somebody else has bound it, and told its id
  KvmFile kvm_file = {};  // destroyed before the fd is closed
  GivenFdUse given = {};  // if it was given
};

// The device has a cdev at all; and its node, which can be opened here and is this device's.
[[nodiscard]] Result<std::string> find_cdev(const Requirement&, Lookup& lookup);
[[nodiscard]] Node node_of_cdev(const Lookup& lookup);
[[nodiscard]] bool has_cdev(const Lookup& lookup);
[[nodiscard]] Result<std::string> find_cdev_node(const Requirement&, Lookup& lookup);
inline constexpr Requirement cdev{
    .key = "cdev", .title = "VFIO cdev", .of = Requirement::Of::device, .find = find_cdev};
inline constexpr Requirement cdev_node{.key = "cdev-node",
                                       .title = {},
                                       .of = Requirement::Of::device,
                                       .node = node_of_cdev,
                                       .applies = has_cdev,
                                       .find = find_cdev_node};

// Opens the cdev, or takes HostDevice::fd, tells KVM of it, if that is not null, and binds it, unless it is bound.
// Errors: those of the backend's requirements of the device (but its node is opened); EPERM (the group is not viable,
// or interrupts are not isolated), ESTALE (the node is not this device's), those of KVM, and of
// VFIO_DEVICE_BIND_IOMMUFD; EBUSY (the one that was given is attached).
[[nodiscard]] Result<BoundDevice> open_cdev(const std::shared_ptr<Iommufd>& iommufd, const HostDevice& device,
                                            const std::shared_ptr<const KvmVfioDevice>& kvm);

}  // namespace postern::iommufd
