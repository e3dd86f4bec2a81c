// SPDX-License-Identifier: Apache-2.0
// Type1Container: mapping and limits by the ioctls of vfio_iommu_type1.
#include "iommu/type1/container.hpp"

#include <fmt/format.h>

#include "base/words.hpp"
#include "host/requirements.hpp"
#include "iommu/address_space.hpp"
#include "iommu/type1/info.hpp"
#include "kernel/vfio.hpp"

namespace postern::type1 {

Type1Container::Type1Container(Opened opened)
    : GroupContainer(
          std::move(opened),
          {.name = "type1", .unmap = vfio::iommu_unmap_dma.symbol, .when_empty = WhenEmpty::clears_mappings}),
      unmaps_all_(has_extension(VFIO_UNMAP_ALL)),
      dirty_log_(*this) {}

CallResult Type1Container::map(Iova iova, std::uint64_t length, void* address, Access access) {
  return {.result = map_dma(iova, length, address, access), .call = vfio::iommu_map_dma.symbol.data()};
}

int Type1Container::unmap(Iova iova, std::uint64_t length) {
  std::uint64_t unmapped = 0;
  const int result = unmap_dma(iova, length, unmapped);
  // The unmap of a range without mappings succeeds; the kernel reports how much it unmapped (vfio_dma_do_unmap).
  return result == 0 && unmapped == 0 ? 1 : result;
}

int Type1Container::unmap_all() {
  if (unmaps_all_) {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
    return vfio::iommu_unmap_dma(kernel(), fd().get(), unmap);
  }
  return GroupContainer::unmap_all();
}

Result<void> Type1Container::set_up(const HostDevice& device) {
  const int result = vfio::set_iommu(kernel(), fd().get(), extension().number);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = fmt::format("container type1 for {}", device.name)};
  explain_set_iommu(what);
  if (result == -EPERM) explain_unsafe_interrupts(what, kernel(), module);
  return call_failure(vfio::set_iommu.symbol, std::move(what));
}

Result<ContainerLimits> Type1Container::read_limits() {
  auto info = POSTERN_TRY(read_info(fd()));
  ContainerLimits limits;
  // A kernel before 5.4 does not report the ranges; then only the kernel checks them.
  limits.usable_ranges = info.iova_ranges.value_or(std::vector<IovaRange>{{{0}, {~std::uint64_t{0}}}});
  limits.page_sizes = info.page_sizes;
  // The kernel reports the number of mappings left (of vfio_iommu_type1.dma_entry_limit, by default 65,535), not the
  // limit.
  if (info.mappings_left) limits.mapping_limit = *info.mappings_left + space().mappings().size();
  return limits;
}

Container::Properties Type1Container::properties() const {
  Container::Properties properties;
  properties.emplace_back("extension", extension().symbol);
  properties.emplace_back("groups", groups_text());
  properties.emplace_back("unmap all", unmaps_all_ ? "VFIO_UNMAP_ALL" : "one by one");
  if (!has_groups()) return properties;
  if (const auto info = read_info(fd())) {
    if (info->mappings_left) properties.emplace_back("mappings left", std::to_string(*info->mappings_left));
    if (info->migration && extension().version != 1) {  // version 1 cannot query it
      properties.emplace_back("dirty log",
                              fmt::format("pages of {}, bitmap to {}", page_sizes_text(info->migration->page_sizes),
                                          size_text(info->migration->largest_bitmap)));
    }
  }
  return properties;
}

}  // namespace postern::type1
