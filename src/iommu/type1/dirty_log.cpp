// SPDX-License-Identifier: Apache-2.0
// Type1DirtyLog: START, STOP, GET_BITMAP, and unmap with a bitmap.
#include "iommu/type1/dirty_log.hpp"

#include <fmt/format.h>

#include "iommu/address_space.hpp"
#include "iommu/type1/container.hpp"
#include "iommu/type1/info.hpp"
#include "kernel/flex_array.hpp"
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

TrackedDevice Type1DirtyLog::probe(const Attached& attached) const {
  const std::string& device = attached.host.name;
  const auto info = read_info(container_->fd());
  if (!info) return {.device = device, .source = DirtySource::none, .note = info.error().message()};
  if (!info->migration) {
    return {.device = device,
            .source = DirtySource::none,
            .note = "the kernel has no dirty log for type1 (VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION is missing)"};
  }
  // update_user_bitmap and vfio_iova_dirty_bitmap (Linux 5.8): with a device behind an IOMMU all pages of a mapping
  // count as written. Of a mediated device its driver pins what it has written.
  if (attached.host.bus == "mdev") return {.device = device, .source = DirtySource::iommu, .note = ""};
  return {.device = device,
          .source = DirtySource::iommu,
          .note = "type1 reports every mapped page dirty",
          .marks_everything = true};
}

Result<void> Type1DirtyLog::start(std::span<const Attached* const> /*devices*/) {
  if (started_) return {};
  auto info = POSTERN_TRY(read_info(container_->fd()));
  most_pages_ = info.migration ? info.migration->largest_bitmap * 8 : 0;
  if (const int result = set_logging(container_->fd(), VFIO_IOMMU_DIRTY_PAGES_FLAG_START); result < 0) {
    CallFailed what{.result = result, .object = "start the dirty log of container type1"};
    if (result == -EINVAL) {
      // vfio_dma_bitmap_alloc_all (Linux 5.8).
      what.kind = ErrorKind::limit_reached;
      what.reason = fmt::format("a mapping has more pages than a bitmap can have bits, {}", most_pages_);
      what.remedy = RemedyCode::map_smaller_pieces;
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
  FlexArray<vfio_iommu_type1_dirty_bitmap, vfio_iommu_type1_dirty_bitmap_get> call;
  call.head().flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
  *call.tail() = {.iova = request.range.first.value,
                  .size = request.range.length(),
                  .bitmap = {.pgsize = request.page_size,
                             .size = request.words() * sizeof(std::uint64_t),
                             .data = reinterpret_cast<__u64*>(request.bits)}};
  return vfio::iommu_dirty_pages(container_->fd().kernel(), container_->fd().get(), call.head());
}

// The kernel overwrites whole words, so its result is merged. It rejects ranges that split a mapping
// (vfio_iova_dirty_bitmap), so a range that is too long is queried in pieces of whole mappings.
Result<void> Type1DirtyLog::collect(const DirtyRequest& request, AfterQuery /*after*/) {
  if (!started_) return {};
  const ShadowMap& mappings = container_->space().mappings();
  std::vector<std::uint64_t> bits;
  for (Iova first = request.range.first;;) {
    Iova last = mappings.find(first)->range.last;
    while (last < request.range.last) {
      const Iova next = mappings.find(last + 1)->range.last;
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
  FlexArray<vfio_iommu_type1_dma_unmap, vfio_bitmap> call;
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
