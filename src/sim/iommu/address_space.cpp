// SPDX-License-Identifier: Apache-2.0
// Domain: DMA through a page table.
#include "sim/iommu/address_space.hpp"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

namespace postern::sim {
namespace {

// If the memory was unmapped since, the DMA fails here, without a signal.
bool copy_from(std::uintptr_t address, std::span<std::byte> bytes) {
  const iovec local{.iov_base = bytes.data(), .iov_len = bytes.size()};
  const iovec remote{.iov_base = reinterpret_cast<void*>(address), .iov_len = bytes.size()};
  return ::process_vm_readv(::getpid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes.size());
}

bool copy_to(std::uintptr_t address, std::span<const std::byte> bytes) {
  const iovec local{.iov_base = const_cast<std::byte*>(bytes.data()), .iov_len = bytes.size()};
  const iovec remote{.iov_base = reinterpret_cast<void*>(address), .iov_len = bytes.size()};
  return ::process_vm_writev(::getpid(), &local, 1, &remote, 1, 0) == static_cast<ssize_t>(bytes.size());
}

// Calls copy(area, address, offset into the bytes, length) for each mapping that contains some of the bytes.
template <typename Copy>
bool for_each_part(const AddressSpace& space, Iova iova, std::size_t length, Copy copy) {
  for (std::size_t done = 0; done < length;) {
    const Iova at = iova + done;
    const Area* const area = space.holding(at);
    if (area == nullptr || (area->is_alive && !*area->is_alive)) return false;
    const std::size_t part = std::min<std::uint64_t>(length - done, area->range.last - at + 1);
    if (!copy(*area, area->address + (at - area->range.first), done, part)) return false;
    done += part;
  }
  return true;
}

}  // namespace

bool Domain::read(Iova iova, std::span<std::byte> bytes) {
  return for_each_part(*space_, iova, bytes.size(),
                       [&](const Area& area, std::uintptr_t address, std::size_t offset, std::size_t length) {
                         return area.readable && copy_from(address, bytes.subspan(offset, length));
                       });
}

bool Domain::write(Iova iova, std::span<const std::byte> bytes) {
  return for_each_part(*space_, iova, bytes.size(),
                       [&](const Area& area, std::uintptr_t address, std::size_t offset, std::size_t length) {
                         if (!area.writable || !copy_to(address, bytes.subspan(offset, length))) return false;
                         if (!tracks_dirty_) return true;
                         constexpr std::uint64_t page = 4096;
                         const std::uint64_t first = (iova.value + offset) & ~(page - 1);
                         for (std::uint64_t at = first; at < iova.value + offset + length; at += page)
                           dirty_.insert(at);
                         return true;
                       });
}

}  // namespace postern::sim
