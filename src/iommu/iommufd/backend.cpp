// SPDX-License-Identifier: Apache-2.0
// The iommufd backend: devices by their own cdev in an IOAS of /dev/iommu, the interface that Linux has had since 6.6.
#include <postern/backend.hpp>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "host/node.hpp"
#include "host/requirements.hpp"
#include "iommu/iommufd/cdev.hpp"
#include "iommu/iommufd/container.hpp"

namespace postern {
namespace {

Result<Fd> probe(Kernel& kernel, const HostDevice* device) {
  auto node = iommufd::Iommufd::probe(kernel);
  if (!node) return node;
  auto usable = device != nullptr ? iommufd::probe_cdev(kernel, *device) : require_iommu(kernel);
  if (usable) usable = require_interrupt_isolation(kernel, device, "iommufd");
  return usable ? std::move(node) : failure_of(usable);
}

Result<std::shared_ptr<Container>> open_at(Fd node, Kernel& kernel, const ContainerOptions& options) {
  if (options.version != 0) {
    return refusal({.result = -EINVAL,
                    .object = "container iommufd",
                    .reason = "the backend has no versions",
                    .remedy = "leave the version out"});
  }
  auto iommufd = iommufd::Iommufd::shared(kernel, std::move(node));
  if (!iommufd) return failure_of(iommufd);
  auto ioas = (*iommufd)->allocate_ioas();
  if (!ioas) return failure_of(ioas);
  const auto container = [&] {
    const OnThrow undo([&] { log_failure_of([&] { return (*iommufd)->destroy(*ioas, "IOAS"); }); });
    return std::make_shared<iommufd::IommufdContainer>(*iommufd, *ioas);
  }();
  if (options.huge_pages == HugePages::avoid) {
    if (auto done = (*iommufd)->avoid_huge_pages(*ioas); !done) return failure_of(done);
  }
  return container;
}

}  // namespace

extern const Backend iommufd_backend;
const Backend iommufd_backend = {.name = "iommufd",
                                 .summary = "devices by their cdev in an IOAS (/dev/iommu, /dev/vfio/devices/vfioN)",
                                 .versions = {},
                                 .probe = probe,
                                 .open_at = open_at};

}  // namespace postern
