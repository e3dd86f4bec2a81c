// SPDX-License-Identifier: Apache-2.0
// The spapr backend: IOMMU groups of POWER machines in a container of /dev/vfio/vfio. Version 1 since Linux 3.10,
// version 2 since 4.2.
#include <array>
#include <postern/backend.hpp>

#include "iommu/spapr/container.hpp"
#include "kernel/spapr.hpp"

namespace postern {
namespace {

constexpr std::array<KernelContainer::Extension, 2> extensions{{
    {.version = 2, .number = VFIO_SPAPR_TCE_v2_IOMMU, .symbol = "VFIO_SPAPR_TCE_v2_IOMMU"},
    {.version = 1, .number = VFIO_SPAPR_TCE_IOMMU, .symbol = "VFIO_SPAPR_TCE_IOMMU"},
}};
constexpr std::array<std::uint32_t, 2> versions = {2, 1};
constexpr KernelContainer::Interface interface {
  .backend = "spapr", .module = "vfio_iommu_spapr_tce", .is_for_power = true, .extensions = extensions
};

Result<Fd> probe(Kernel& kernel, const HostDevice* device) { return KernelContainer::probe(kernel, interface, device); }

Result<std::shared_ptr<Container>> open_at(Fd node, Kernel& kernel, const ContainerOptions& options) {
  if (options.huge_pages == HugePages::avoid) {
    return refusal({.result = -EOPNOTSUPP,
                    .object = "container spapr",
                    .reason = "each DMA window has pages of one size",
                    .remedy = "create a window of the page size you want"});
  }
  auto opened = KernelContainer::open(kernel, interface, options.version, std::move(node));
  if (!opened) return failure_of(opened);
  return std::make_shared<spapr::SpaprContainer>(std::move(opened->fd), opened->extension, options.memory);
}

}  // namespace

extern const Backend spapr_backend;
const Backend spapr_backend = {
    .name = "spapr",
    .summary = "IOMMU groups of POWER in a VFIO container, with DMA windows (/dev/vfio/vfio)",
    .versions = versions,
    .probe = probe,
    .open_at = open_at};

}  // namespace postern
