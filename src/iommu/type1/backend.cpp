// SPDX-License-Identifier: Apache-2.0
// The type1 backend: IOMMU groups in a container of /dev/vfio/vfio, the interface that Linux has had since 3.6.
#include <array>
#include <postern/backend.hpp>

#include "host/requirements.hpp"
#include "iommu/type1/container.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

// v2 before v1: with v1 an unmap may take back more than it was asked to.
constexpr std::array<KernelContainer::Extension, 2> extensions{{
    {.version = 2, .number = VFIO_TYPE1v2_IOMMU, .symbol = "VFIO_TYPE1v2_IOMMU"},
    {.version = 1, .number = VFIO_TYPE1_IOMMU, .symbol = "VFIO_TYPE1_IOMMU"},
}};
constexpr std::array<std::uint32_t, 2> versions = {2, 1};
constexpr KernelContainer::Interface interface {
  .backend = "type1", .module = "vfio_iommu_type1", .is_for_power = false, .extensions = extensions
};

Result<Fd> probe(Kernel& kernel, const HostDevice* device) {
  auto node = KernelContainer::probe(kernel, interface, device);
  if (!node) return node;
  auto isolated = require_interrupt_isolation(kernel, device, interface.backend);
  return isolated ? std::move(node) : failure_of(isolated);
}

Result<std::shared_ptr<Container>> open_at(Fd node, Kernel& kernel, const ContainerOptions& options) {
  if (options.huge_pages == HugePages::avoid) {
    return refusal({.result = -EOPNOTSUPP,
                    .object = "container type1",
                    .reason = "type1 cannot avoid huge pages for one container",
                    .remedy = "use iommufd, or load vfio_iommu_type1 with disable_hugepages=1"});
  }
  auto opened = KernelContainer::open(kernel, interface, options.version, std::move(node));
  if (!opened) return failure_of(opened);
  return std::make_shared<type1::Type1Container>(std::move(opened->fd), opened->extension);
}

}  // namespace

extern const Backend type1_backend;
const Backend type1_backend = {.name = "type1",
                               .summary = "IOMMU groups in a VFIO container (/dev/vfio/vfio, /dev/vfio/N)",
                               .versions = versions,
                               .probe = probe,
                               .open_at = open_at};

}  // namespace postern
