// SPDX-License-Identifier: Apache-2.0
// Iommufd: the ioctls of IOASes: allowed ranges and mappings.
#include <linux/iommufd.h>

#include <algorithm>
#include <cstring>

#include "sim/iommufd/iommufd.hpp"
#include "sim/process/dma_buf.hpp"

namespace postern::sim {
namespace {

constexpr std::uint64_t most = ~std::uint64_t{0};
constexpr std::uint32_t access_flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
constexpr std::uint32_t map_flags = access_flags | IOMMU_IOAS_MAP_FIXED_IOVA;

// The first checks of all ioctls that map.
int check_map(std::uint32_t flags, std::uint64_t iova, std::uint64_t length) {
  if ((flags & ~map_flags) != 0) return -EOPNOTSUPP;
  if (iova == most || length == most) return -EOVERFLOW;
  return (flags & access_flags) == 0 ? -EINVAL : 0;
}

}  // namespace

// iommufd_ioas_alloc_ioctl
int Iommufd::execute(iommu_ioas_alloc& command) {
  if (command.flags != 0) return -EOPNOTSUPP;
  command.out_ioas_id = free_id();
  if (const int result = respond(&command, sizeof command); result < 0) return result;
  add_ioas(command.out_ioas_id);
  return 0;
}

// iommufd_ioas_iova_ranges
int Iommufd::execute(iommu_ioas_iova_ranges& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  const Ioas* const ioas = find<Ioas>(command.ioas_id);
  if (ioas == nullptr) return -ENOENT;
  const std::uint32_t room = command.num_iovas;
  const auto ranges = ioas->table.free_ranges();
  auto to = static_cast<std::uintptr_t>(command.allowed_iovas);
  for (std::size_t i = 0; i < ranges.size() && i < room; ++i, to += sizeof(iommu_iova_range)) {
    const iommu_iova_range range{.start = ranges[i].first.value, .last = ranges[i].last.value};
    if (process_.check(to, sizeof range, true) < 0) return -EFAULT;
    std::memcpy(reinterpret_cast<void*>(to), &range, sizeof range);
  }
  command.num_iovas = static_cast<std::uint32_t>(ranges.size());
  command.out_iova_alignment = ioas->table.alignment();
  if (const int result = respond(&command, sizeof command); result < 0) return result;
  return command.num_iovas > room ? -EMSGSIZE : 0;
}

// iommufd_ioas_allow_iovas, iommufd_ioas_load_iovas
int Iommufd::execute(iommu_ioas_allow_iovas& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  Ioas* const ioas = find<Ioas>(command.ioas_id);
  if (ioas == nullptr) return -ENOENT;
  std::map<Iova, Iova> last_by_first;
  auto from = static_cast<std::uintptr_t>(command.allowed_iovas);
  for (std::uint32_t i = 0; i < command.num_iovas; ++i, from += sizeof(iommu_iova_range)) {
    iommu_iova_range range{};
    if (process_.check(from, sizeof range, false) < 0) return -EFAULT;
    std::memcpy(&range, reinterpret_cast<const void*>(from), sizeof range);
    if (range.start >= range.last) return -EINVAL;
    const auto behind = last_by_first.upper_bound({range.last});
    if (behind != last_by_first.begin() && std::prev(behind)->second.value >= range.start) return -EINVAL;
    last_by_first[{range.start}] = {range.last};
  }
  std::vector<IovaRange> ranges;
  ranges.reserve(last_by_first.size());
  for (const auto& [first, last] : last_by_first) ranges.push_back({first, last});
  return ioas->table.allow(std::move(ranges));
}

// iopt_map_user_pages, iopt_alloc_user_pages, iopt_alloc_pages
int Iommufd::map_memory(Ioas& ioas, std::uint64_t address, std::uint64_t length, std::uint32_t flags,
                        std::uint64_t& iova) {
  if (address + length < address) return -EOVERFLOW;
  if (length == 0 || length > most - IoPagetable::page_size) return -EINVAL;
  const IoPagetable::Piece piece{static_cast<std::uintptr_t>(address), length, nullptr};
  return ioas.table.map(std::span(&piece, 1), length, flags, iova);
}

// iommufd_ioas_map
int Iommufd::execute(iommu_ioas_map& command) {
  if (command.__reserved != 0) return -EOPNOTSUPP;
  if (const int result = check_map(command.flags, command.iova, command.length); result < 0) return result;
  Ioas* const ioas = find<Ioas>(command.ioas_id);
  if (ioas == nullptr) return -ENOENT;
  std::uint64_t iova = command.iova;
  const int result = map_memory(*ioas, command.user_va, command.length, command.flags, iova);
  if (result < 0) return result;
  command.iova = iova;
  return respond(&command, sizeof command);
}

// iommufd_ioas_map_file, iopt_map_file_pages
int Iommufd::execute(iommu_ioas_map_file& command) {
  if (const int result = check_map(command.flags, command.iova, command.length); result < 0) return result;
  Ioas* const ioas = find<Ioas>(command.ioas_id);
  if (ioas == nullptr) return -ENOENT;
  if (command.length == 0) return -EINVAL;
  if (command.start + (command.length - 1) < command.start) return -EOVERFLOW;
  const auto opened = process_.files.find_any(command.fd);
  if (!opened) return -EBADF;
  const bool writable = (command.flags & IOMMU_IOAS_MAP_WRITEABLE) != 0;
  IoPagetable::Piece piece{.length = command.length};
  if (const auto dma_buf = file_as<DmaBuf>(opened)) {
    // iopt_alloc_dmabuf_pages
    if (dma_buf->size() <= command.start + (command.length - 1)) return -EINVAL;
    std::shared_ptr<const bool> is_alive;
    if (const int result = dma_buf->map(is_alive); result < 0) return result;
    piece.address = dma_buf->address() + command.start;
    piece.pages = std::make_shared<SharedPages>(writable, std::move(is_alive));
  } else {
    if (command.length > most - IoPagetable::page_size) return -EINVAL;
    auto file = std::make_unique<FilePages>(command.fd, command.start, command.length);
    piece.address = file->address();
    piece.pages = std::make_shared<SharedPages>(writable, std::move(file));
  }
  std::uint64_t iova = command.iova;
  const int result = ioas->table.map(std::span(&piece, 1), command.length, command.flags, iova);
  if (result < 0) return result;
  command.iova = iova;
  return respond(&command, sizeof command);
}

// iommufd_ioas_copy
int Iommufd::execute(iommu_ioas_copy& command) {
  const std::uint64_t larger_iova = std::max(command.src_iova, command.dst_iova);
  if (const int result = check_map(command.flags, larger_iova, command.length); result < 0) return result;
  Ioas* const source = find<Ioas>(command.src_ioas_id);
  if (source == nullptr) return -ENOENT;
  if (command.length == 0) return -EINVAL;
  const auto range = IovaRange::from_length({command.src_iova}, command.length);
  if (!range) return -EOVERFLOW;
  std::vector<IoPagetable::Piece> pieces;
  if (const int result = source->table.get_pages(*range, pieces); result < 0) return result;
  Ioas* const target = find<Ioas>(command.dst_ioas_id);
  if (target == nullptr) return -ENOENT;
  std::uint64_t iova = command.dst_iova;
  const int result = target->table.map(pieces, command.length, command.flags, iova);
  if (result < 0) return result;
  command.dst_iova = iova;
  return respond(&command, sizeof command);
}

// iommufd_ioas_unmap: unmapping everything succeeds even if nothing is mapped.
int Iommufd::execute(iommu_ioas_unmap& command) {
  Ioas* const ioas = find<Ioas>(command.ioas_id);
  if (ioas == nullptr) return -ENOENT;
  const bool is_all = command.iova == 0 && command.length == most;
  IovaRange range{{0}, {most}};
  if (!is_all) {
    if (command.iova == most || command.length == most) return -EOVERFLOW;
    if (command.length == 0) return -EINVAL;
    const auto wanted = IovaRange::from_length({command.iova}, command.length);
    if (!wanted) return -EOVERFLOW;
    range = *wanted;
  }
  std::uint64_t unmapped = 0;
  if (const int result = ioas->table.unmap(range, unmapped); result < 0) return result;
  if (unmapped == 0 && !is_all) return -ENOENT;
  command.length = unmapped;
  return respond(&command, sizeof command);
}

// iommufd_ioas_noiommu_get_pa, iopt_get_phys: uses the IOAS's first page table; a mapping is physically contiguous
// here.
int Iommufd::execute(iommu_ioas_noiommu_get_pa& command) {
  if (!process_.is_privileged()) return -EPERM;
  if (command.flags != 0 || command.__reserved != 0) return -EOPNOTSUPP;
  if (command.length == 0) return -EINVAL;
  if (command.iova == most) return -EOVERFLOW;
  const Ioas* const ioas = find<Ioas>(command.ioas_id);
  if (ioas == nullptr) return -ENOENT;
  const Area* const area = ioas->table.space()->holding({command.iova});
  if (area == nullptr) return -ENOENT;
  if (ioas->hwpts.empty() || !find<Hwpt>(ioas->hwpts.front())->is_noiommu) return -EOPNOTSUPP;
  command.out_phys = area->address + (command.iova - area->range.first.value);
  command.length = std::min(command.length, area->range.last.value - command.iova + 1);
  return respond(&command, sizeof command);
}

}  // namespace postern::sim
