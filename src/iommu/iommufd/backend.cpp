// SPDX-License-Identifier: Apache-2.0
// The iommufd backend: devices by their own cdev in an IOAS of /dev/iommu, the interface that Linux has had since 6.6.
#include <array>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "iommu/backend_ops.hpp"
#include "iommu/iommufd/cdev.hpp"
#include "iommu/iommufd/container.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr std::array<Requirement, 7> requirements = {
    iommufd::iommufd_node,         any_iommu, in_group, vfio_driver, iommufd::cdev, iommufd::cdev_node,
    isolation_for(iommufd::module)};

Result<std::unique_ptr<BackendContainer>> open(Probed probed, Kernel& kernel, const ContainerOptions& options) {
  if (options.version != 0) {
    return refusal({.result = -EINVAL,
                    .object = "container iommufd",
                    .reason = "the backend has no versions",
                    .remedy = RemedyCode::omit_version});
  }
  auto opened = POSTERN_TRY(options.fd ? iommufd::Iommufd::of(kernel, options.fd)
                                       : iommufd::Iommufd::shared(kernel, std::move(probed.node)));
  auto ioas = POSTERN_TRY(opened->allocate_ioas());
  auto container = [&] {
    const OnThrow undo([&] { log_failure_of([&] { return opened->destroy(ioas, "IOAS"); }); });
    return std::make_unique<iommufd::IommufdContainer>(opened, ioas);
  }();
  if (options.huge_pages == HugePages::avoid) {
    POSTERN_TRY(opened->avoid_huge_pages(ioas));
  }
  return container;
}

// Each IOAS counts what is mapped in it. What GuestMemory and replay() show in a second one is a copy (IOMMU_IOAS_COPY)
// and counts nothing: then it takes as little as with one container.
Result<std::vector<LockedMemoryNeed>> locked_memory(Kernel& kernel, const MemoryToMap& memory,
                                                    std::span<const HostDevice> devices) {
  return std::vector{need_of_each_container("iommufd", iommufd::Iommufd::shared_counter(kernel), memory, devices)};
}

constexpr BackendOps ops{.requirements = requirements, .locked_memory = locked_memory, .open = open};

}  // namespace

extern const Backend iommufd_backend;
const Backend iommufd_backend = {.name = "iommufd",
                                 .summary = "devices by their cdev in an IOAS (/dev/iommu, /dev/vfio/devices/vfioN)",
                                 .versions = {},
                                 .ops = &ops};

}  // namespace postern
