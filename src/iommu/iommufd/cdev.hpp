// SPDX-License-Identifier: Apache-2.0
// A device's cdev, /dev/vfio/devices/vfioN: finding it, opening it, binding it to an iommufd.
#pragma once

#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>

#include "iommu/iommufd/iommufd.hpp"

namespace postern::iommufd {

// A device that is bound to an iommufd; closing the fd unbinds it.
struct BoundDevice {
  Fd fd;
  ObjectId id = 0;
};

// Whether the device has a cdev that can be opened here.
[[nodiscard]] Result<void> probe_cdev(Kernel& kernel, const HostDevice& device);

// Errors: those of probe_cdev() (but it is opened, not probed); EPERM (the group is not viable, or interrupts are not
// isolated), ESTALE (the node is not this device's), those of VFIO_DEVICE_BIND_IOMMUFD.
[[nodiscard]] Result<BoundDevice> open_cdev(const Iommufd& iommufd, const HostDevice& device);

}  // namespace postern::iommufd
