// SPDX-License-Identifier: Apache-2.0
// The type1 backend: IOMMU groups in a container of /dev/vfio/vfio, the interface that Linux has had since 3.6.
#include <array>

#include "iommu/backend_ops.hpp"
#include "iommu/type1/container.hpp"
#include "kernel/vfio.hpp"

namespace postern {
namespace {

// v2 before v1: with v1 an unmap may take back more than it was asked to.
constexpr std::array<GroupContainer::Extension, 2> extensions{{
    {.version = 2, .number = VFIO_TYPE1v2_IOMMU, .symbol = "VFIO_TYPE1v2_IOMMU"},
    {.version = 1, .number = VFIO_TYPE1_IOMMU, .symbol = "VFIO_TYPE1_IOMMU"},
}};
constexpr std::array<std::uint32_t, 2> versions = {2, 1};
constexpr GroupContainer::Interface interface { .backend = "type1", .module = type1::module, .extensions = extensions };

Result<std::string> find_interface(const Requirement& /*requirement*/, Lookup& lookup) {
  return GroupContainer::find_interface(interface, lookup);
}

// The container's node is there without the module that knows the host's IOMMU, so the interface is one of its own.
constexpr std::array<Requirement, 7> requirements = {container_node,
                                                     any_iommu,
                                                     in_group,
                                                     vfio_driver,
                                                     group_node,
                                                     interface_of_groups(find_interface),
                                                     isolation_for(type1::module)};

Result<std::unique_ptr<BackendContainer>> open(Probed probed, Kernel& kernel, const ContainerOptions& options) {
  if (options.huge_pages == HugePages::avoid) {
    return refusal({.result = -EOPNOTSUPP,
                    .object = "container type1",
                    .reason = "type1 cannot avoid huge pages for one container",
                    .remedy = RemedyCode::use_iommufd_or_disable_huge_pages});
  }
  auto opened = POSTERN_TRY(GroupContainer::open_node(kernel, interface, options, std::move(probed)));
  return std::make_unique<type1::Type1Container>(std::move(opened));
}

// Each container counts what is mapped in it (vfio_lock_acct), to the process that maps.
Result<std::vector<LockedMemoryNeed>> locked_memory(Kernel& /*kernel*/, const MemoryToMap& memory,
                                                    std::span<const HostDevice> devices) {
  return std::vector{need_of_each_container(interface.backend, LockedMemoryCounter::process, memory, devices)};
}

constexpr BackendOps ops{.requirements = requirements, .locked_memory = locked_memory, .open = open};

}  // namespace

extern const Backend type1_backend;
const Backend type1_backend = {.name = "type1",
                               .summary = "IOMMU groups in a VFIO container (/dev/vfio/vfio, /dev/vfio/N)",
                               .versions = versions,
                               .ops = &ops};

}  // namespace postern
