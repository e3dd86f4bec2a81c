// SPDX-License-Identifier: Apache-2.0
// The spapr backend: IOMMU groups of POWER machines in a container of /dev/vfio/vfio. Version 1 since Linux 3.10,
// version 2 since 4.2.
#include <array>

#include "iommu/backend_ops.hpp"
#include "iommu/spapr/container.hpp"
#include "iommu/spapr/locked_memory.hpp"
#include "kernel/spapr.hpp"

namespace postern {
namespace {

constexpr std::array<GroupContainer::Extension, 2> extensions{{
    {.version = 2, .number = VFIO_SPAPR_TCE_v2_IOMMU, .symbol = "VFIO_SPAPR_TCE_v2_IOMMU"},
    {.version = 1, .number = VFIO_SPAPR_TCE_IOMMU, .symbol = "VFIO_SPAPR_TCE_IOMMU"},
}};
constexpr std::array<std::uint32_t, 2> versions = {2, 1};
constexpr GroupContainer::Interface interface {
  .backend = "spapr", .module = "vfio_iommu_spapr_tce", .extensions = extensions
};

Result<std::string> find_interface(const Requirement& /*requirement*/, Lookup& lookup) {
  return GroupContainer::find_interface(interface, lookup);
}

// No isolation of interrupts: a PCI host bridge lets a group raise its own alone.
constexpr std::array<Requirement, 6> requirements = {container_node, any_iommu,  in_group,
                                                     vfio_driver,    group_node, interface_of_groups(find_interface)};

Result<std::unique_ptr<BackendContainer>> open(Probed probed, Kernel& kernel, const ContainerOptions& options) {
  if (options.huge_pages == HugePages::avoid) {
    return refusal({.result = -EOPNOTSUPP,
                    .object = "container spapr",
                    .reason = "each DMA window has pages of one size",
                    .remedy = RemedyCode::create_window_with_page_size});
  }
  auto opened = POSTERN_TRY(GroupContainer::open_node(kernel, interface, options, std::move(probed)));
  return std::make_unique<spapr::SpaprContainer>(std::move(opened), options.memory);
}

constexpr BackendOps ops{.requirements = requirements, .locked_memory = spapr::locked_memory, .open = open};

}  // namespace

extern const Backend spapr_backend;
const Backend spapr_backend = {
    .name = "spapr",
    .summary = "IOMMU groups of POWER in a VFIO container, with DMA windows (/dev/vfio/vfio)",
    .versions = versions,
    .ops = &ops};

}  // namespace postern
