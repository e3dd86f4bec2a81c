// SPDX-License-Identifier: Apache-2.0
// The type1 backend: IOMMU groups in a container of /dev/vfio/vfio, the interface that Linux has had since 3.6.
#include <postern/backend.hpp>

#include "host/requirements.hpp"
#include "iommu/group.hpp"
#include "iommu/node.hpp"
#include "iommu/type1/container.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

constexpr const char* container_path = "/dev/vfio/vfio";
constexpr const char* no_container =
    "load the module with \"modprobe vfio_iommu_type1\"; the kernel needs CONFIG_VFIO_CONTAINER";

Result<void> probe(Kernel& kernel, const HostDevice* device) {
  if (auto node = probe_node(kernel, container_path, "backend type1", no_container); !node) return node;
  return device != nullptr ? probe_group(kernel, *device) : require_iommu(kernel);
}

Result<std::shared_ptr<Container>> open(Kernel& kernel, const ContainerOptions& options) {
  if (options.huge_pages == HugePages::avoid) {
    return call_failure("open", {.result = -EOPNOTSUPP,
                                 .object = "container type1",
                                 .reason = "type1 cannot avoid huge pages for one container",
                                 .remedy = "use iommufd, or load vfio_iommu_type1 with disable_hugepages=1"});
  }
  auto container = open_node(kernel, container_path, "container type1", no_container);
  if (!container) return failure_of(container);
  const int version = vfio::get_api_version(kernel, container->get());
  if (version != VFIO_API_VERSION) {
    return call_failure(vfio::get_api_version.symbol, {.result = version < 0 ? version : -EPROTO,
                                                       .object = "container type1",
                                                       .reason = "the kernel speaks another version"});
  }
  // v2 before v1: with v1 an unmap may take back more than it was asked to.
  for (const unsigned long extension : {VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_IOMMU}) {
    if (vfio::check_extension(kernel, container->get(), extension) > 0) {
      return std::make_shared<type1::Type1Container>(std::move(*container), extension);
    }
  }
  return call_failure(vfio::check_extension.symbol,
                      {.result = -ENODEV,
                       .object = "container type1",
                       .reason = "the kernel has neither VFIO_TYPE1v2_IOMMU nor VFIO_TYPE1_IOMMU",
                       .remedy = "load the module with \"modprobe vfio_iommu_type1\""});
}

}  // namespace

extern const Backend type1_backend;
const Backend type1_backend = {.name = "type1",
                               .summary = "IOMMU groups in a VFIO container (/dev/vfio/vfio, /dev/vfio/N)",
                               .probe = probe,
                               .open = open};

}  // namespace postern
