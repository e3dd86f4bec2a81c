// SPDX-License-Identifier: Apache-2.0
// Type1Container: mapping, groups and limits by the ioctls of vfio_iommu_type1.
#include "iommu/type1/container.hpp"

#include <fmt/format.h>

#include "base/words.hpp"
#include "host/requirements.hpp"
#include "iommu/type1/info.hpp"
#include "kernel/vfio.hpp"

namespace postern::type1 {
Type1Container::Type1Container(Fd fd, const KernelContainer::Extension& extension)
    : Container(fd.kernel(), {.backend = "type1",
                              .map = vfio::iommu_map_dma.symbol,
                              .unmap = vfio::iommu_unmap_dma.symbol,
                              .when_empty = WhenEmpty::forgets_mappings}),
      container_(std::move(fd), {.set_up = [this](const HostDevice& device) { return set_iommu(device); },
                                 .tear_down = [this] { dirty_log_.lose(); }}),
      extension_(extension),
      unmaps_all_(container_.has_extension(VFIO_UNMAP_ALL)),
      dirty_log_(container_, *this),
      dirty_tracker_(*this, dirty_log_) {}

int Type1Container::do_map(Iova iova, std::uint64_t length, void* address, Access access) {
  return container_.map_dma(iova, length, address, access);
}

int Type1Container::do_unmap(Iova iova, std::uint64_t length) {
  std::uint64_t unmapped = 0;
  const int result = container_.unmap_dma(iova, length, unmapped);
  // The kernel takes a range that it has no mapping in for a success, and says how much it unmapped
  // (vfio_dma_do_unmap).
  return result == 0 && unmapped == 0 ? 1 : result;
}

int Type1Container::do_unmap_all() {
  if (unmaps_all_) {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.flags = VFIO_DMA_UNMAP_FLAG_ALL;
    return vfio::iommu_unmap_dma(kernel(), container_.fd().get(), unmap);
  }
  return Container::do_unmap_all();
}

Result<void> Type1Container::set_iommu(const HostDevice& device) {
  const int result = vfio::set_iommu(kernel(), container_.fd().get(), extension_.number);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = fmt::format("container type1 for {}", device.name)};
  if (result == -EPERM) explain_unsafe_interrupts(what, kernel(), "type1");
  return call_failure(vfio::set_iommu.symbol, std::move(what));
}

Result<Fd> Type1Container::do_attach(const HostDevice& device) { return container_.attach(device); }

Result<void> Type1Container::do_detach(const std::string& device, Fd fd) {
  return container_.detach(device, std::move(fd));
}

Result<void> Type1Container::do_close() {
  container_.close();
  return {};
}

Result<ContainerLimits> Type1Container::read_limits() {
  auto info = read_info(container_.fd());
  if (!info) return failure_of(info);
  ContainerLimits limits;
  // A kernel before 5.4 does not tell the ranges; then the kernel alone can refuse.
  limits.usable_ranges = info->iova_ranges.value_or(std::vector<IovaRange>{{{0}, {~std::uint64_t{0}}}});
  limits.page_sizes = info->page_sizes;
  // The kernel tells how many mappings are left (vfio_iommu_type1.dma_entry_limit, 65,535 unless raised), not the
  // limit.
  if (info->mappings_left) limits.mapping_limit = *info->mappings_left + mapping_count();
  return limits;
}

Container::Facts Type1Container::facts() const {
  Facts facts;
  facts.emplace_back("extension", extension_.symbol);
  facts.emplace_back("groups", container_.groups_text());
  facts.emplace_back("unmap all", unmaps_all_ ? "VFIO_UNMAP_ALL" : "one by one");
  if (container_.empty()) return facts;
  if (const auto info = read_info(container_.fd())) {
    if (info->mappings_left) facts.emplace_back("mappings left", std::to_string(*info->mappings_left));
    if (info->migration && extension_.version != 1) {  // which could not be asked for
      facts.emplace_back("dirty log",
                         fmt::format("pages of {}, bitmap to {}", page_sizes_text(info->migration->page_sizes),
                                     size_text(info->migration->largest_bitmap)));
    }
  }
  return facts;
}

}  // namespace postern::type1
