// SPDX-License-Identifier: Apache-2.0
// Whether a backend can be used: its probe, and the node that it opens when it attaches.
#include "host/usable.hpp"

#include <cerrno>

namespace postern::tool {

Result<void> require_usable(Kernel& kernel, const HostDevice* device, const Backend& backend) {
  if (auto probed = backend.probe(kernel, device); !probed) return failure_of(probed);
  if (device == nullptr) return {};
  const bool by_cdev = backend.name == "iommufd" && device->cdev;
  if (!by_cdev && !device->iommu_group) return {};
  auto opened = require_node(kernel, by_cdev ? device->cdev->path : "/dev/vfio/" + to_string(*device->iommu_group));
  if (!opened && opened.error().code() == EBUSY) return {};
  return opened;
}

}  // namespace postern::tool
