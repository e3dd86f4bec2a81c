// SPDX-License-Identifier: Apache-2.0
// Type1: the checks of vfio_iommu_type1.c, Linux 7.3, in the kernel's order.
#include "sim/type1/type1.hpp"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>

#include "sim/process/argument.hpp"

namespace postern::sim {
namespace {

constexpr std::uint64_t largest_bitmap = (std::uint64_t{std::numeric_limits<int>::max()} + 63) / 64 * 8;

// The flexible array at the end of a struct of the uAPI.
template <typename Tail, typename Head>
Tail& tail_of(Head& head) {
  return *reinterpret_cast<Tail*>(reinterpret_cast<std::byte*>(&head) + sizeof(Head));
}

// verify_bitmap_size
bool fits(const vfio_bitmap& bitmap, std::uint64_t length) {
  constexpr std::uint64_t user_end = std::uint64_t{1} << 63;  // access_ok
  const auto data = reinterpret_cast<std::uintptr_t>(bitmap.data);
  if (data >= user_end || bitmap.size > user_end - data || bitmap.pgsize == 0) return false;
  const std::uint64_t pages = length >> std::countr_zero(bitmap.pgsize);
  return pages != 0 && bitmap.size != 0 && bitmap.size <= largest_bitmap && bitmap.size >= (pages + 63) / 64 * 8;
}

std::uint64_t words_for(std::uint64_t bits) { return (bits + 63) / 64; }

// __bitmap_shift_left, including the bits that it leaves after the last
void shift_left(std::vector<std::uint64_t>& words, std::uint64_t shift, std::uint64_t bits) {
  for (std::uint64_t i = words_for(bits); i-- > 0;) {
    words[i] = words[i] << shift | (i > 0 ? words[i - 1] >> (64 - shift) : 0);
  }
}

void fill(std::vector<std::uint64_t>& words, std::uint64_t bits, bool value) {
  for (std::uint64_t bit = 0; bit < bits; ++bit) {
    const std::uint64_t mask = std::uint64_t{1} << bit % 64;
    words[bit / 64] = value ? words[bit / 64] | mask : words[bit / 64] & ~mask;
  }
}

// vfio_dma_bitmap_alloc, with one more word for shifting
std::shared_ptr<std::vector<std::uint64_t>> make_bitmap(std::uint64_t pages) {
  if (pages > std::uint64_t{std::numeric_limits<int>::max()}) return nullptr;
  return std::make_shared<std::vector<std::uint64_t>>(words_for(pages) + 1);
}

// struct vfio_iommu_type1_info_cap_iova_range without the array at its end.
struct RangesHead {
  vfio_info_cap_header header;
  std::uint32_t count;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(RangesHead) == sizeof(vfio_iommu_type1_info_cap_iova_range));

// Appends capabilities to a struct vfio_iommu_type1_info, each with its offset in the one before.
class Chain {
 public:
  template <typename Capability>
  std::byte* add(const Capability& capability, std::size_t more = 0) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + (sizeof capability + more + 7) / 8 * 8);  // vfio_info_cap_add
    std::memcpy(bytes_.data() + at, &capability, sizeof capability);
    if (last_ != none) {
      const auto next = static_cast<std::uint32_t>(sizeof(vfio_iommu_type1_info) + at);
      std::memcpy(bytes_.data() + last_ + offsetof(vfio_info_cap_header, next), &next, sizeof next);
    }
    last_ = at;
    return bytes_.data() + at + sizeof capability;
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const noexcept { return bytes_; }

 private:
  static constexpr std::size_t none = ~std::size_t{0};
  std::vector<std::byte> bytes_;
  std::size_t last_ = none;
};

}  // namespace

Type1::Type1(const IommuModel& iommu, Process& process, int version, std::uint64_t mapping_limit)
    : iommu_(iommu),
      process_(process),
      usable_(usable_ranges(iommu)),
      version_(version),
      mappings_left_(mapping_limit) {}

Type1::~Type1() {
  space_->for_each([this](const Area& area) { process_.unlock(area.locked); });
  space_->clear();
}

int Type1::check_extension(unsigned long extension, bool is_set) {
  if (extension == VFIO_UPDATE_VADDR) return is_set ? 1 : 0;
  return extension == VFIO_TYPE1_IOMMU || extension == VFIO_TYPE1v2_IOMMU || extension == VFIO_UNMAP_ALL ? 1 : 0;
}

int Type1::ioctl(unsigned long request, void* argument) {
  switch (request) {
    case VFIO_IOMMU_GET_INFO:
      return with_argument<vfio_iommu_type1_info>(process_, argument, offsetof(vfio_iommu_type1_info, cap_offset),
                                                  [this](auto& info) { return get_info(info); });
    case VFIO_IOMMU_MAP_DMA:
      return with_argument<vfio_iommu_type1_dma_map>(process_, argument, sizeof(vfio_iommu_type1_dma_map),
                                                     [this](auto& wanted) { return map(wanted); });
    case VFIO_IOMMU_UNMAP_DMA:
      return with_argument<vfio_iommu_type1_dma_unmap>(process_, argument, sizeof(vfio_iommu_type1_dma_unmap),
                                                       [this](auto& wanted) { return unmap(wanted); });
    case VFIO_IOMMU_DIRTY_PAGES:
      if (version_ == 1) return -EACCES;
      return with_argument<vfio_iommu_type1_dirty_bitmap>(
          process_, argument, sizeof(vfio_iommu_type1_dirty_bitmap),
          [this](auto& wanted) { return dirty_pages(wanted); }, UserArgument::Tail::wanted);
    default:
      return -ENOTTY;
  }
}

int Type1::get_info(vfio_iommu_type1_info& info) const {
  if (info.argsz < offsetof(vfio_iommu_type1_info, iova_pgsizes) + sizeof info.iova_pgsizes) return -EINVAL;
  Chain chain;
  chain.add(vfio_iommu_type1_info_cap_migration{.header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, .version = 1},
                                                .flags = 0,
                                                .pgsize_bitmap = page(),
                                                .max_dirty_bitmap_size = largest_bitmap});
  chain.add(vfio_iommu_type1_info_dma_avail{.header = {.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, .version = 1},
                                            .avail = static_cast<std::uint32_t>(mappings_left_)});
  const RangesHead head{.header = {.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1},
                        .count = static_cast<std::uint32_t>(usable_.size())};
  std::byte* next = chain.add(head, usable_.size() * sizeof(vfio_iova_range));
  for (const IovaRange range : usable_) {
    const vfio_iova_range one{.start = range.first.value, .end = range.last.value};
    std::memcpy(next, &one, sizeof one);
    next += sizeof one;
  }
  // vfio_iommu_type1_get_info: writes the required size, or everything. The struct is truncated if it does not fit.
  const auto needed = static_cast<std::uint32_t>(sizeof info + chain.bytes().size());
  const bool has_room = info.argsz >= needed;
  const std::size_t room = std::min<std::size_t>(info.argsz, sizeof info);
  const vfio_iommu_type1_info answer{.argsz = has_room ? info.argsz : needed,
                                     .flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
                                     .iova_pgsizes = iommu_.page_sizes,
                                     .cap_offset = has_room ? static_cast<std::uint32_t>(sizeof info) : 0};
  if (has_room) std::memcpy(&info + 1, chain.bytes().data(), chain.bytes().size());
  std::memcpy(static_cast<void*>(&info), &answer, room);
  return 0;
}

bool Type1::is_usable(IovaRange range) const {
  return std::any_of(usable_.begin(), usable_.end(), [range](IovaRange usable) { return usable.contains(range); });
}

int Type1::map(const vfio_iommu_type1_dma_map& request) {
  constexpr std::uint32_t known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE | VFIO_DMA_MAP_FLAG_VADDR;
  if (request.argsz < sizeof request || (request.flags & ~known) != 0) return -EINVAL;
  // vfio_dma_do_map
  if (request.size == 0) return -EINVAL;
  const auto range = IovaRange::from_length({request.iova}, request.size);
  if (!range || request.vaddr + (request.size - 1) < request.vaddr) return -EOVERFLOW;
  const bool readable = (request.flags & VFIO_DMA_MAP_FLAG_READ) != 0;
  const bool writable = (request.flags & VFIO_DMA_MAP_FLAG_WRITE) != 0;
  const bool moves = (request.flags & VFIO_DMA_MAP_FLAG_VADDR) != 0;
  if ((readable || writable) == moves) return -EINVAL;
  if (((request.size | request.iova | request.vaddr) & (page() - 1)) != 0) return -EINVAL;
  const Area* const taken = space_->first_in(*range);
  if (moves) return give_address(taken, *range, request.vaddr);
  if (taken != nullptr) return -EEXIST;
  if (mappings_left_ == 0) return -ENOSPC;
  if (!is_usable(*range)) return -EINVAL;
  // vfio_pin_map_dma: a page that cannot be pinned fails before the limit is checked. A BAR is accepted, too, and not
  // counted (vaddr_get_pfns, follow_fault_pfn).
  const std::uint64_t locked = request.size - process_.mapped_files.bytes_in(request.vaddr, request.size);
  if (const int result = process_.check(request.vaddr, request.size, writable); result < 0) return result;
  if (const int result = process_.lock(locked); result < 0) return result;
  Area area{.range = *range, .address = request.vaddr, .readable = readable, .writable = writable, .locked = locked};
  if (logs_dirty_ && !(area.bitmap = make_bitmap(request.size / page()))) {
    process_.unlock(locked);
    return -EINVAL;
  }
  --mappings_left_;
  space_->insert(area);
  return 0;
}

int Type1::give_address(const Area* area, IovaRange range, std::uintptr_t address) {
  if (area == nullptr) return -ENOENT;
  if (!area->is_moving || area->range != range) return -EINVAL;
  Area moved(*area);
  moved.address = address;
  moved.is_moving = false;
  space_->insert(moved);
  --moving_;
  return 0;
}

void Type1::remove(const Area& area) {
  process_.unlock(area.locked);
  if (area.is_moving) --moving_;
  ++mappings_left_;
  space_->erase(Area(area));
}

// Whether an end of the range is within a mapping, and not at its border.
bool Type1::cuts(IovaRange range) const {
  const Area* const first = space_->holding(range.first);
  if (first != nullptr && first->range.first != range.first) return true;
  const Area* const last = space_->holding(range.last);
  return last != nullptr && last->range.last != range.last;
}

// vfio_dma_do_unmap
int Type1::unmap_range(IovaRange range, std::uint64_t& unmapped, const vfio_bitmap* bitmap) {
  while (const Area* const area = space_->first_in(range)) {
    // Version 1 removes a whole mapping if its first iova is in the range, else nothing.
    if (version_ == 1 && area->range.first < range.first) break;
    if (bitmap != nullptr) {
      if (const int result = tell(*bitmap, range.first, *area); result < 0) return result;
    }
    unmapped += area->range.length();
    remove(*area);
  }
  return 0;
}

// The same with VFIO_DMA_UNMAP_FLAG_VADDR. Fails at a mapping without an address, and reverts those before it.
int Type1::take_addresses(IovaRange range, std::uint64_t& taken) {
  std::vector<Area> areas;
  for (IovaRange rest = range; const Area* const area = space_->first_in(rest);) {
    if (version_ == 1 && area->range.first < range.first) break;
    areas.push_back(*area);
    if (area->range.last >= rest.last) break;
    rest.first = area->range.last + 1;
  }
  if (std::any_of(areas.begin(), areas.end(), [](const Area& area) { return area.is_moving; })) return -EINVAL;
  for (Area& area : areas) {
    area.is_moving = true;
    taken += area.range.length();
    space_->insert(area);
  }
  moving_ += areas.size();
  return 0;
}

// update_user_bitmap: all pages that a device could have written are dirty. The mapping's bitmap is shifted in place,
// and bits shifted past its pages stay there.
int Type1::tell(const vfio_bitmap& bitmap, Iova base, const Area& area) {
  const std::uint64_t pages = area.range.length() / page();
  const std::uint64_t first = (area.range.first - base) / page();
  const std::uint64_t shift = first % 64;
  auto& words = *area.bitmap;
  fill(words, pages, true);
  const auto to = reinterpret_cast<std::uintptr_t>(bitmap.data + first / 64);
  const std::uint64_t bytes = words_for(pages + shift) * 8;
  if (shift != 0) {
    shift_left(words, shift, pages + shift);
    if (process_.check(to, 8, false) < 0) return -EFAULT;
    words[0] |= *reinterpret_cast<const std::uint64_t*>(to);
  }
  if (process_.check(to, bytes, true) < 0) return -EFAULT;
  std::memcpy(reinterpret_cast<void*>(to), words.data(), bytes);
  return 0;
}

int Type1::unmap(vfio_iommu_type1_dma_unmap& request) {
  constexpr std::uint32_t known =
      VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_VADDR | VFIO_DMA_UNMAP_FLAG_ALL;
  if (request.argsz < sizeof request || (request.flags & ~known) != 0) return -EINVAL;
  const bool tells = (request.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) != 0;
  const bool all = (request.flags & VFIO_DMA_UNMAP_FLAG_ALL) != 0;
  const bool moves = (request.flags & VFIO_DMA_UNMAP_FLAG_VADDR) != 0;
  if (tells && (all || moves)) return -EINVAL;
  const vfio_bitmap* const bitmap = tells ? &tail_of<vfio_bitmap>(request) : nullptr;
  if (tells && (request.argsz < sizeof request + sizeof *bitmap || !fits(*bitmap, request.size))) return -EINVAL;
  if ((request.iova & (page() - 1)) != 0) return -EINVAL;
  std::uint64_t unmapped = 0;
  int result = 0;
  if (all) {
    if (request.iova != 0 || request.size != 0) return -EINVAL;
    const IovaRange everything{{0}, {~std::uint64_t{0}}};
    result = moves ? take_addresses(everything, unmapped) : unmap_range(everything, unmapped, nullptr);
  } else {
    if (request.size == 0 || (request.size & (page() - 1)) != 0) return -EINVAL;
    const auto range = IovaRange::from_length({request.iova}, request.size);
    if (!range) return -EOVERFLOW;
    if (tells && (!logs_dirty_ || bitmap->pgsize != page())) return -EINVAL;
    if (version_ == 2 && cuts(*range)) return -EINVAL;
    result = moves ? take_addresses(*range, unmapped) : unmap_range(*range, unmapped, bitmap);
  }
  if (result == 0) request.size = unmapped;
  return result;
}

int Type1::dirty_pages(vfio_iommu_type1_dirty_bitmap& request) {
  constexpr std::uint32_t known =
      VFIO_IOMMU_DIRTY_PAGES_FLAG_START | VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP | VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP;
  if (request.argsz < sizeof request || (request.flags & ~known) != 0 || !std::has_single_bit(request.flags)) {
    return -EINVAL;
  }
  if (request.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_START) return start_log();
  if (request.flags == VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP) {
    stop_log();
    return 0;
  }
  const auto& get = tail_of<vfio_iommu_type1_dirty_bitmap_get>(request);
  return request.argsz < sizeof request + sizeof get ? -EINVAL : get_bitmap(get);
}

// vfio_dma_bitmap_alloc_all
int Type1::start_log() {
  if (logs_dirty_) return 0;
  std::vector<Area> areas;
  space_->for_each([&](const Area& area) { areas.push_back(area); });
  for (Area& area : areas) {
    area.bitmap = make_bitmap(area.range.length() / page());
    if (!area.bitmap) return -EINVAL;
  }
  for (const Area& area : areas) space_->insert(area);
  logs_dirty_ = true;
  return 0;
}

void Type1::stop_log() {
  std::vector<Area> areas;
  space_->for_each([&](const Area& area) { areas.push_back(area); });
  for (Area& area : areas) {
    area.bitmap.reset();
    space_->insert(area);
  }
  logs_dirty_ = false;
}

// vfio_iova_dirty_bitmap
int Type1::get_bitmap(const vfio_iommu_type1_dirty_bitmap_get& get) {
  if (get.size == 0) return -EINVAL;
  const auto range = IovaRange::from_length({get.iova}, get.size);
  if (!range) return -EOVERFLOW;
  if (!fits(get.bitmap, get.size) || get.bitmap.pgsize != page()) return -EINVAL;
  if (((get.iova | get.size) & (page() - 1)) != 0 || !logs_dirty_ || cuts(*range)) return -EINVAL;
  IovaRange rest = *range;
  while (const Area* const area = space_->first_in(rest)) {
    if (const int result = tell(get.bitmap, range->first, *area); result < 0) return result;
    fill(*area->bitmap, area->range.length() / page(), false);
    if (area->range.last >= range->last) break;
    rest.first = area->range.last + 1;
  }
  return 0;
}

}  // namespace postern::sim
