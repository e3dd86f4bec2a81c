// SPDX-License-Identifier: Apache-2.0
// Type1DirtyLog: START, STOP, GET_BITMAP, and unmapping with a bitmap.
#include "iommu/type1/dirty_log.hpp"

#include <fmt/format.h>

#include "iommu/kernel_container.hpp"
#include "iommu/type1/info.hpp"
#include "kernel/tailed.hpp"
#include "kernel/vfio.hpp"
#include "memory/page_bits.hpp"

namespace postern::type1 {
namespace {

int set_logging(const Fd& container, std::uint32_t flag) {
  vfio_iommu_type1_dirty_bitmap dirty{};
  dirty.argsz = sizeof dirty;
  dirty.flags = flag;
  return vfio::iommu_dirty_pages(container.kernel(), container.get(), dirty);
}

}  // namespace

TrackedDevice Type1DirtyLog::probe(const std::string& device) const {
  const auto info = read_info(container_->fd());
  if (!info) return {.device = device, .source = DirtySource::nobody, .note = info.error().message()};
  if (!info->migration) {
    return {.device = device,
            .source = DirtySource::nobody,
            .note = "the kernel has no dirty log for type1 (VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION is missing)"};
  }
  return {.device = device,
          .source = DirtySource::iommu,
          .note = "type1 counts every page as written that a device with an IOMMU can reach"};
}

Result<void> Type1DirtyLog::start(std::span<const std::string> /*devices*/) {
  if (started_) return {};
  auto info = read_info(container_->fd());
  if (!info) return failure_of(info);
  most_pages_ = info->migration ? info->migration->largest_bitmap * 8 : 0;
  if (const int result = set_logging(container_->fd(), VFIO_IOMMU_DIRTY_PAGES_FLAG_START); result < 0) {
    CallFailed what{.result = result, .object = "start the dirty log of container type1"};
    if (result == -EINVAL) {
      // vfio_dma_bitmap_alloc_all (Linux 5.8).
      what.reason = fmt::format("a mapping has more pages than a bitmap may have bits, {}", most_pages_);
      what.remedy = "map in smaller pieces";
    }
    return call_failure(vfio::iommu_dirty_pages.symbol, std::move(what));
  }
  started_ = true;
  return {};
}

Result<void> Type1DirtyLog::stop() {
  if (!started_) return {};
  started_ = false;
  if (const int result = set_logging(container_->fd(), VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP); result < 0) {
    return call_failure(vfio::iommu_dirty_pages.symbol,
                        {.result = result, .object = "stop the dirty log of container type1"});
  }
  return {};
}

int Type1DirtyLog::get_bitmap(const DirtyRequest& request) const {
  Tailed<vfio_iommu_type1_dirty_bitmap, vfio_iommu_type1_dirty_bitmap_get> call;
  call.head().flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
  *call.tail() = {.iova = request.range.first.value,
                  .size = request.range.length(),
                  .bitmap = {.pgsize = request.page_size,
                             .size = request.words() * sizeof(std::uint64_t),
                             .data = reinterpret_cast<__u64*>(request.bits)}};
  return vfio::iommu_dirty_pages(container_->fd().kernel(), container_->fd().get(), call.head());
}

// The kernel writes whole words over what is there, so that its answer is merged; it takes no range that cuts a mapping
// in two (vfio_iova_dirty_bitmap), so that one too long for it is asked for in pieces of whole mappings.
Result<void> Type1DirtyLog::collect(const DirtyRequest& request, AfterQuery /*after*/) {
  if (!started_) return {};
  std::vector<std::uint64_t> bits;
  for (Iova first = request.range.first;;) {
    Iova last = mappings_->find(first)->range.last;
    while (last < request.range.last) {
      const Iova next = mappings_->find(last + 1)->range.last;
      if ((next - first) / request.page_size >= most_pages_) break;
      last = next;
    }
    DirtyRequest piece{.range = {first, last}, .page_size = request.page_size};
    bits.assign(piece.words(), 0);
    piece.bits = bits.data();
    if (const int result = get_bitmap(piece); result < 0) {
      return call_failure(
          vfio::iommu_dirty_pages.symbol,
          {.result = result, .object = fmt::format("dirty pages of {} in container type1", to_string(piece.range))});
    }
    memory::merge_bits({request.bits, (first - request.range.first) / request.page_size}, {bits.data(), 0},
                       piece.pages());
    if (last >= request.range.last) return {};
    first = last + 1;
  }
}

int Type1DirtyLog::unmap(const DirtyRequest& mapping) {
  if (!started_) {
    std::uint64_t unmapped = 0;
    return container_->unmap_dma(mapping.range.first, mapping.range.length(), unmapped);
  }
  std::vector<std::uint64_t> bits(mapping.words());
  Tailed<vfio_iommu_type1_dma_unmap, vfio_bitmap> call;
  call.head().flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
  call.head().iova = mapping.range.first.value;
  call.head().size = mapping.range.length();
  *call.tail() = {.pgsize = mapping.page_size,
                  .size = bits.size() * sizeof(std::uint64_t),
                  .data = reinterpret_cast<__u64*>(bits.data())};
  const int result = vfio::iommu_unmap_dma(container_->fd().kernel(), container_->fd().get(), call.head());
  if (result < 0) return result;
  memory::merge_bits({mapping.bits, 0}, {bits.data(), 0}, mapping.pages());
  return 0;
}

}  // namespace postern::type1
