// SPDX-License-Identifier: Apache-2.0
// Iommufd: VFIO's container ioctls on /dev/iommu, which operate on one IOAS: drivers/iommu/iommufd/vfio_compat.c (Linux
// 7.3).
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <algorithm>
#include <cstring>

#include "sim/iommufd/iommufd.hpp"
#include "sim/process/argument.hpp"

namespace postern::sim {
namespace {

// The capabilities after a struct vfio_iommu_type1_info, truncated if they do not fit.
class Chain {
 public:
  explicit Chain(vfio_iommu_type1_info& info) : bytes_(reinterpret_cast<std::byte*>(&info)), room_(info.argsz) {}

  template <typename Part>
  void put(std::size_t at, const Part& part) {
    if (length_ + at + sizeof part <= room_) std::memcpy(bytes_ + length_ + at, &part, sizeof part);
  }
  // Sets the length of the last capability, after which the next one is written.
  void end(std::size_t length) {
    if (last_ != 0 && room_ >= length_) {
      const auto next = static_cast<std::uint32_t>(length_);
      std::memcpy(bytes_ + last_ + offsetof(vfio_info_cap_header, next), &next, sizeof next);
    }
    last_ = length_;
    length_ += (length + 7) / 8 * 8;
  }
  [[nodiscard]] std::size_t length() const noexcept { return length_; }
  [[nodiscard]] bool fits() const noexcept { return room_ >= length_; }

 private:
  std::byte* bytes_;
  std::size_t room_;
  std::size_t length_ = sizeof(vfio_iommu_type1_info);
  std::size_t last_ = 0;
};

}  // namespace

// iommufd_vfio_ioas
int Iommufd::execute(iommu_vfio_ioas& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  switch (command.op) {
    case IOMMU_VFIO_IOAS_GET:
      if (vfio_ioas_ == 0) return -ENODEV;
      command.ioas_id = vfio_ioas_;
      return respond(&command, sizeof command);
    case IOMMU_VFIO_IOAS_SET:
      if (find<Ioas>(command.ioas_id) == nullptr) return -ENOENT;
      vfio_ioas_ = command.ioas_id;
      return 0;
    case IOMMU_VFIO_IOAS_CLEAR:
      vfio_ioas_ = 0;
      return 0;
    default:
      return -EOPNOTSUPP;
  }
}

// iommufd_vfio_compat_ioas_create
int Iommufd::vfio_compat_ioas_create() {
  if (no_iommu_mode_) return -EINVAL;
  if (vfio_ioas_ != 0) return 0;
  vfio_ioas_ = free_id();
  add_ioas(vfio_ioas_);
  return 0;
}

// iommufd_vfio_compat_set_no_iommu
int Iommufd::vfio_compat_set_no_iommu() {
  if (vfio_ioas_ != 0) return -EINVAL;
  no_iommu_mode_ = true;
  return 0;
}

// iommufd_vfio_compat_ioas_get_id: IOMMU_VFIO_IOAS_CLEAR may have removed it.
int Iommufd::vfio_compat_attach(Device& device) {
  Id page_table = vfio_ioas_;
  return page_table != 0 ? attach(device, page_table) : -ENODEV;
}

// iommufd_vfio_ioctl
int Iommufd::vfio_ioctl(unsigned long request, void* argument) {
  Ioas* const ioas = vfio_ioas_ != 0 ? find<Ioas>(vfio_ioas_) : nullptr;
  switch (request) {
    case VFIO_GET_API_VERSION:
      return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
      return vfio_check_extension(ioas, reinterpret_cast<std::uintptr_t>(argument));
    case VFIO_SET_IOMMU:
      return vfio_set_iommu(ioas, reinterpret_cast<std::uintptr_t>(argument));
    case VFIO_IOMMU_GET_INFO:
      return with_argument<vfio_iommu_type1_info>(process_, argument, offsetof(vfio_iommu_type1_info, cap_offset),
                                                  [&](auto& info) { return vfio_get_info(ioas, info); });
    case VFIO_IOMMU_MAP_DMA:
      return with_argument<vfio_iommu_type1_dma_map>(process_, argument, sizeof(vfio_iommu_type1_dma_map),
                                                     [&](auto& wanted) { return vfio_map(ioas, wanted); });
    case VFIO_IOMMU_UNMAP_DMA:
      return with_argument<vfio_iommu_type1_dma_unmap>(process_, argument, sizeof(vfio_iommu_type1_dma_unmap),
                                                       [&](auto& wanted) { return vfio_unmap(ioas, wanted); });
    default:
      return -ENOTTY;
  }
}

// iommufd_vfio_check_extension, with CONFIG_VFIO_NOIOMMU. No page table here enforces cache coherency
// (IOMMU_CAP_ENFORCE_CACHE_COHERENCY), so an IOAS does only while it has no page table (iommufd_vfio_cc_iommu).
int Iommufd::vfio_check_extension(const Ioas* ioas, unsigned long extension) const {
  switch (extension) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
      return no_iommu_mode_ ? 0 : 1;
    case VFIO_NOIOMMU_IOMMU:
      return 1;
    case VFIO_DMA_CC_IOMMU:
      if (ioas == nullptr) return -ENODEV;
      return ioas->hwpts.empty() ? 1 : 0;
    default:
      return 0;
  }
}

// iommufd_vfio_set_iommu
int Iommufd::vfio_set_iommu(Ioas* ioas, unsigned long type) const {
  if (no_iommu_mode_) return type != VFIO_NOIOMMU_IOMMU ? -EINVAL : process_.is_privileged() ? 0 : -EPERM;
  if (type != VFIO_TYPE1_IOMMU && type != VFIO_TYPE1v2_IOMMU) return -EINVAL;
  if (ioas == nullptr) return -ENODEV;
  return type == VFIO_TYPE1_IOMMU ? ioas->table.set_large_pages(false) : 0;
}

// iommufd_vfio_iommu_get_info, iommufd_fill_cap_dma_avail, iommufd_fill_cap_iova
int Iommufd::vfio_get_info(const Ioas* ioas, vfio_iommu_type1_info& info) {
  if (info.argsz < offsetof(vfio_iommu_type1_info, cap_offset)) return -EINVAL;
  if (ioas == nullptr) return -ENODEV;
  const std::size_t room = std::min<std::size_t>(info.argsz, sizeof info);
  Chain chain(info);
  const vfio_iommu_type1_info_dma_avail available{.header = {.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, .version = 1},
                                                  .avail = ~std::uint32_t{0}};
  chain.put(0, available);
  chain.end(sizeof available);
  const auto ranges = ioas->table.free_ranges();
  struct {
    vfio_info_cap_header header{.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1};
    std::uint32_t count = 0;
    std::uint32_t reserved = 0;
  } head;
  std::size_t length = sizeof head;
  for (const IovaRange range : ranges) {
    chain.put(length, vfio_iova_range{.start = range.first.value, .end = range.last.value});
    length += sizeof(vfio_iova_range);
  }
  head.count = static_cast<std::uint32_t>(ranges.size());
  if (chain.length() + length <= info.argsz) chain.put(0, head);
  chain.end(length);
  const vfio_iommu_type1_info answer{
      .argsz = static_cast<std::uint32_t>(chain.length()),
      .flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
      .iova_pgsizes = std::max(ioas->table.has_domain() ? iommu_.page_sizes : ~(IoPagetable::page_size - 1),
                               ioas->table.alignment()),
      .cap_offset = chain.fits() ? static_cast<std::uint32_t>(sizeof info) : 0};
  std::memcpy(static_cast<void*>(&info), &answer, room);
  return 0;
}

// iommufd_vfio_map_dma
int Iommufd::vfio_map(Ioas* ioas, const vfio_iommu_type1_dma_map& request) {
  constexpr std::uint32_t known = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
  if (request.argsz < sizeof request || (request.flags & ~known) != 0) return -EINVAL;
  if (ioas == nullptr) return -ENODEV;
  std::uint32_t flags = IOMMU_IOAS_MAP_FIXED_IOVA;
  if ((request.flags & VFIO_DMA_MAP_FLAG_READ) != 0) flags |= IOMMU_IOAS_MAP_READABLE;
  if ((request.flags & VFIO_DMA_MAP_FLAG_WRITE) != 0) flags |= IOMMU_IOAS_MAP_WRITEABLE;
  std::uint64_t iova = request.iova;
  return map_memory(*ioas, request.vaddr, request.size, flags, iova);
}

// iommufd_vfio_unmap_dma: reports the unmapped length also on failure.
int Iommufd::vfio_unmap(Ioas* ioas, vfio_iommu_type1_dma_unmap& request) {
  if (request.argsz < sizeof request || (request.flags & ~std::uint32_t{VFIO_DMA_UNMAP_FLAG_ALL}) != 0) return -EINVAL;
  if (ioas == nullptr) return -ENODEV;
  IovaRange range{{0}, {~std::uint64_t{0}}};
  std::uint64_t unmapped = 0;
  int result = 0;
  if ((request.flags & VFIO_DMA_UNMAP_FLAG_ALL) != 0) {
    if (request.iova != 0 || request.size != 0) return -EINVAL;
  } else {
    if (!ioas->table.has_large_pages()) {
      result = ioas->table.cut({request.iova + request.size - 1});
      if (result == 0 && request.iova != 0) result = ioas->table.cut({request.iova - 1});
      if (result < 0) return result;
    }
    // iopt_unmap_iova
    const auto wanted = IovaRange::from_length({request.iova}, request.size);
    if (!wanted) result = request.size == 0 ? -EINVAL : -EOVERFLOW;
    if (wanted) range = *wanted;
  }
  if (result == 0) result = ioas->table.unmap(range, unmapped);
  request.size = unmapped;
  return result;
}

}  // namespace postern::sim
