// SPDX-License-Identifier: Apache-2.0
// Ioctls of a type1 container.
#include <linux/vfio.h>

#include <cstring>

#include "kernel/flex_array.hpp"
#include "transcript/operations.hpp"
#include "transcript/text.hpp"

namespace postern::transcript {
namespace {

constexpr std::size_t most_bitmap = 65536;

// Puts the whole answer with its capability chain into one line.
std::string get_info(World& world) {
  const Place& container = world.usable_one(world.containers);
  alignas(8) std::byte answer[256];
  std::memset(answer, 0xee, sizeof answer);
  auto& info = *reinterpret_cast<vfio_iommu_type1_info*>(answer);
  info.argsz = world.random.pick({0U, 8U, 15U, 16U, 18U, 20U, 23U, 24U, 25U, 100U, 127U, 128U, 200U, 256U, 256U});
  const std::uint32_t given = info.argsz;
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_GET_INFO, answer);
  std::string line = fmt::format("{} GET_INFO argsz {} -> {}, argsz {}, {}", container.name, given, outcome(result),
                                 info.argsz, digest(answer));
  if (result < 0 || given < sizeof info) return line;
  line += fmt::format(", flags {:#x}, pgsizes {:#x}", info.flags, info.iova_pgsizes);
  for (std::uint32_t at = info.cap_offset; at != 0 && at < sizeof answer;) {
    const auto& header = *reinterpret_cast<const vfio_info_cap_header*>(answer + at);
    line += fmt::format(", cap {} v{}@{}", header.id, header.version, at);
    if (header.id == VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL) {
      line += fmt::format(" avail {}", reinterpret_cast<const vfio_iommu_type1_info_dma_avail*>(answer + at)->avail);
    } else if (header.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE) {
      const auto& capability = *reinterpret_cast<const vfio_iommu_type1_info_cap_iova_range*>(answer + at);
      for (std::uint32_t i = 0; i < capability.nr_iovas; ++i) {
        line += fmt::format(" {:#x}-{:#x}", capability.iova_ranges[i].start, capability.iova_ranges[i].end);
      }
    }
    at = header.next;
  }
  return line;
}

std::string map(World& world) {
  const Place& container = world.usable_one(world.containers);
  Roomy<vfio_iommu_type1_dma_map> room_for(world);
  auto& request = room_for.request;
  make_some_map(world, request);
  auto& mapped = world.mappings[world.index_of(container, world.containers)];
  if ((request.flags & VFIO_DMA_MAP_FLAG_VADDR) != 0 && !mapped.empty() && world.random.chance(80)) {
    const Mapping& one = mapped[world.random.below(mapped.size())];
    request.iova = one.iova;
    request.size = one.length;
  }
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_MAP_DMA, &request);
  if (result == 0 && (request.flags & VFIO_DMA_MAP_FLAG_VADDR) == 0) {
    remember_mapping(mapped, {request.iova, request.size});
  }
  return fmt::format("{} MAP_DMA argsz {} flags {:#x} {} at {:#x} size {:#x} -> {}", container.name, request.argsz,
                     request.flags, address(request.vaddr), request.iova, request.size, outcome(result));
}

struct Bitmap {
  vfio_bitmap bitmap{};
  std::size_t used = 0;
};

// A bitmap that usually fits the range.
Bitmap bitmap_for(World& world, std::uint64_t length) {
  Bitmap made;
  const std::uint64_t pages = length / 4096;
  made.bitmap.pgsize =
      world.random.chance(93) ? 4096 : world.random.pick<std::uint64_t>({1, 2048, 8192, 0x200000, 12288});
  made.bitmap.size = (pages + 63) / 64 * 8;
  if (world.random.chance(10)) {
    made.bitmap.size = world.random.pick<std::uint64_t>(
        {0, made.bitmap.size - 8, made.bitmap.size + 8, std::uint64_t{1} << 28, (std::uint64_t{1} << 28) + 8, 1, 7});
  }
  made.used = std::min<std::uint64_t>(made.bitmap.size, most_bitmap);
  made.bitmap.data = reinterpret_cast<__u64*>(some_buffer(world, most_bitmap));
  return made;
}

std::string text(const Bitmap& made) {
  const auto data = reinterpret_cast<std::uint64_t>(made.bitmap.data);
  return fmt::format("bitmap {} size {:#x} pgsize {}", address(data), made.bitmap.size, made.bitmap.pgsize);
}
std::string after(const Bitmap& made) {
  return buffer_digest(reinterpret_cast<std::uint64_t>(made.bitmap.data), most_bitmap);
}

std::string unmap(World& world) {
  const Place& container = world.usable_one(world.containers);
  FlexArray<vfio_iommu_type1_dma_unmap, vfio_bitmap> request;
  const Mapping range = some_range(world, world.mappings[world.index_of(container, world.containers)]);
  request.head().iova = range.iova;
  request.head().size = range.length;
  const std::uint64_t kind = world.random.below(100);
  if (kind >= 70 && kind < 84) request.head().flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP;
  if (kind >= 84 && kind < 89) request.head().flags = VFIO_DMA_UNMAP_FLAG_ALL;
  if (kind >= 84 && kind < 88) request.head().iova = request.head().size = 0;
  if (kind >= 89 && kind < 95) request.head().flags = VFIO_DMA_UNMAP_FLAG_VADDR;
  if (kind >= 95) request.head().flags = static_cast<std::uint32_t>(world.random.below(16));
  const bool tells = (request.head().flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) != 0;
  const Bitmap bitmap = bitmap_for(world, range.length);
  *request.tail() = bitmap.bitmap;
  request.head().argsz = argsz(world, sizeof request.head() + (tells ? sizeof(vfio_bitmap) : 0));
  const std::uint32_t given = request.head().argsz;
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_UNMAP_DMA, &request.head());
  std::string line = fmt::format("{} UNMAP_DMA argsz {} flags {:#x} at {:#x} size {:#x}", container.name, given,
                                 request.head().flags, range.iova, range.length);
  if (tells) line += " " + text(bitmap);
  line += fmt::format(" -> {}, size {:#x}", outcome(result), request.head().size);
  return tells ? line + ", " + after(bitmap) : line;
}

std::string dirty_pages(World& world) {
  const Place& container = world.usable_one(world.containers);
  FlexArray<vfio_iommu_type1_dirty_bitmap, vfio_iommu_type1_dirty_bitmap_get> request;
  const Mapping range = some_range(world, world.mappings[world.index_of(container, world.containers)]);
  const std::uint64_t kind = world.random.below(100);
  request.head().flags = kind < 30   ? VFIO_IOMMU_DIRTY_PAGES_FLAG_START
                         : kind < 36 ? VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP
                         : kind < 95 ? VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP
                                     : static_cast<std::uint32_t>(world.random.below(16));
  const bool gets = (request.head().flags & VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP) != 0;
  const Bitmap bitmap = bitmap_for(world, range.length);
  *request.tail() = {.iova = range.iova, .size = range.length, .bitmap = bitmap.bitmap};
  request.head().argsz = argsz(world, sizeof request.head() + (gets ? sizeof *request.tail() : 0));
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_DIRTY_PAGES, &request.head());
  std::string line =
      fmt::format("{} DIRTY_PAGES argsz {} flags {:#x}", container.name, request.head().argsz, request.head().flags);
  if (!gets) return line + " -> " + outcome(result);
  return line + fmt::format(" at {:#x} size {:#x} {} -> {}, {}", range.iova, range.length, text(bitmap),
                            outcome(result), after(bitmap));
}

bool has_container(const World& world) { return World::has_usable(world.containers); }

constexpr Operation operations[] = {
    {get_info, 20, 1, has_container},
    {map, 130, 2, has_container},
    {unmap, 60, 1, has_container},
    {dirty_pages, 45, 1, has_container},
};

}  // namespace

std::span<const Operation> type1_operations() { return operations; }

}  // namespace postern::transcript
