// SPDX-License-Identifier: Apache-2.0
// A device's cdev, /dev/vfio/devices/vfioN.
#include "iommu/iommufd/cdev.hpp"

#include <fmt/format.h>

#include "host/node.hpp"
#include "host/requirements.hpp"
#include "kernel/vfio.hpp"

namespace postern::iommufd {
namespace {

tl::unexpected<Error> bind_failure(Kernel& kernel, int result, const HostDevice& device) {
  CallFailed what{.result = result, .object = device.name};
  const auto group =
      device.iommu_group ? find_iommu_group(kernel, *device.iommu_group) : Result<IommuGroup>(IommuGroup{});
  if (group && !group->viable()) {
    // iommufd_device_bind claims the group for user space; a driver that uses DMA refuses that (Linux 6.0).
    GroupAdvice advice = advise_on_group(kernel, *group, device.name);
    what.reason = obstacles_text(*group, advice);
    what.remedy = std::move(advice.remedy);
  } else if (result == -EPERM) {
    explain_unsafe_interrupts(what, kernel, "iommufd");
    // The same errno from iommu_device_claim_dma_owner (Linux 6.0).
    if (group && group->members.size() > 1) {
      what.reason = "another process has a device of its group; or " + what.reason;
      what.remedy = "find who holds one with \"fuser -v /dev/vfio/devices/*\" as root; or " + what.remedy;
    }
  } else if (explain_vf_token(what, kernel, device)) {
    // It says all.
  } else if (result == -EBUSY || result == -EINVAL) {
    // EINVAL is how vfio_df_open (Linux 6.6) answers a second open of the cdev; EBUSY, one beside an open group.
    what.reason = "the device, or another one of its group, is in use already, through its cdev or its group";
    what.remedy = fmt::format("find who holds it with \"fuser -v {} /dev/vfio/*\" as root", device.cdev->path);
  }
  return call_failure(vfio::device_bind_iommufd.symbol, std::move(what));
}

// Whether it has one at all; looks at no node.
Result<void> require_cdev(Kernel& kernel, const HostDevice& device) {
  if (auto group = require_group(kernel, device); !group) return failure_of(group);
  if (auto bound = require_vfio_driver(device); !bound) return bound;
  if (!device.cdev || !device.cdev->number) {
    return refusal({.result = -ENODEV,
                    .object = device.name,
                    .reason = device.cdev ? fmt::format("vfio-dev/{} has no \"dev\" file: the kernel is built without "
                                                        "CONFIG_VFIO_DEVICE_CDEV",
                                                        device.cdev->name)
                                          : "it has no vfio-dev folder in sysfs: the kernel is older than 6.1",
                    .remedy = "use a kernel with CONFIG_VFIO_DEVICE_CDEV (6.6 or newer), or the backend type1"});
  }
  return {};
}

}  // namespace

Result<void> probe_cdev(Kernel& kernel, const HostDevice& device) {
  if (auto there = require_cdev(kernel, device); !there) return there;
  return probe_node(kernel, device.cdev->path, device.name);
}

Result<BoundDevice> open_cdev(const Iommufd& iommufd, const HostDevice& device) {
  Kernel& kernel = iommufd.kernel();
  if (auto there = require_cdev(kernel, device); !there) return failure_of(there);
  auto fd = open_node(kernel, device.cdev->path, device.name);
  if (!fd) return failure_of(fd);

  // vfio0 may have become another device's since sysfs was read, or the node may be left over: the number tells.
  FileStatus node;
  const int known = kernel.status(device.cdev->path, node);
  if (known < 0) return call_failure("stat", {.result = known, .object = device.name});
  if (node.device != *device.cdev->number) {
    return refusal({.result = -ESTALE,
                    .object = device.name,
                    .reason = fmt::format("{} is another device's node", device.cdev->path),
                    .remedy = "read the device from sysfs again; if it stays, the node is stale: remove it"});
  }

  vfio_device_bind_iommufd bind{};
  bind.argsz = sizeof bind;
  bind.iommufd = iommufd.fd();
  if (device.vf_token) {
    bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
    bind.token_uuid_ptr = reinterpret_cast<std::uintptr_t>(device.vf_token->bytes.data());
  }
  if (const int result = vfio::device_bind_iommufd(kernel, fd->get(), bind); result < 0) {
    return bind_failure(kernel, result, device);
  }
  return BoundDevice{.fd = std::move(*fd), .id = bind.out_devid};
}

}  // namespace postern::iommufd
