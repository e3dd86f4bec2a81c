// SPDX-License-Identifier: Apache-2.0
// DeviceFile: the regions of a function: config space and BARs, read, written and mapped (Linux 7.3).
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "sim/vfio/device_file.hpp"

namespace postern::sim {
namespace {

constexpr unsigned region_shift = 40;  // VFIO_PCI_OFFSET_SHIFT
constexpr std::uint64_t region_mask = (std::uint64_t{1} << region_shift) - 1;
constexpr std::uint64_t config_size = 4096;

// vfio_pci_config_rw_single
bool is_in_config(std::uint64_t at, std::size_t length) { return at < config_size && length <= config_size - at; }

// access_ok, which vfs_read and vfs_write ask first of all.
bool is_user_memory(const void* buffer) { return reinterpret_cast<std::uintptr_t>(buffer) >> 63 == 0; }

}  // namespace

std::uint64_t DeviceFile::region_size(std::uint64_t index) const {
  if (index == VFIO_PCI_CONFIG_REGION_INDEX) return 4096;
  return index <= VFIO_PCI_BAR5_REGION_INDEX ? function_.info().bar_sizes[index] : 0;
}

int DeviceFile::get_region_info(vfio_region_info& info) const {
  if (info.argsz < offsetof(vfio_region_info, offset) + sizeof info.offset) return -EINVAL;
  if (info.index >= VFIO_PCI_NUM_REGIONS || info.index == VFIO_PCI_VGA_REGION_INDEX) return -EINVAL;
  info.flags = 0;
  info.offset = std::uint64_t{info.index} << region_shift;
  info.size = region_size(info.index);
  if (info.size == 0) return 0;
  info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  const bool mappable = info.index != VFIO_PCI_CONFIG_REGION_INDEX && info.size % 4096 == 0;
  if (!mappable) return 0;
  info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
  if (function_.info().msix_vectors == 0) return 0;
  // The vectors' table is in this BAR, and may be mapped with it.
  info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
  const vfio_info_cap_header capability{.id = VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, .version = 1, .next = 0};
  if (info.argsz >= sizeof info + sizeof capability) {
    info.cap_offset = sizeof info;
    std::memcpy(&info + 1, &capability, sizeof capability);
  } else {
    info.cap_offset = 0;
    info.argsz = sizeof info + sizeof capability;
  }
  return 0;
}

bool DeviceFile::is_there(const void* buffer, std::size_t length, bool writable) {
  return length == 0 ||
         machine_.process.check_argument(reinterpret_cast<std::uintptr_t>(buffer), length, writable) == 0;
}

ssize_t DeviceFile::pread(void* buffer, std::size_t length, std::uint64_t offset) {
  if (!is_user_memory(buffer)) return -EFAULT;
  if (!is_there(buffer, length, true)) {
    // What is wrong with the call itself is told first.
    std::vector<std::byte> elsewhere(std::min(length, std::size_t{1} << 20));
    const ssize_t result = pread(elsewhere.data(), elsewhere.size(), offset);
    return result > 0 ? -EFAULT : result;
  }
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (!usable_) return -EINVAL;
  if (length == 0) return 0;  // vfio_pci_core_read, vfio_pci_core_write
  if (index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  const std::span bytes(static_cast<std::byte*>(buffer), length);
  if (index != VFIO_PCI_CONFIG_REGION_INDEX) {
    return access_bar(index, at, length, true, [&](std::size_t done, std::size_t part, std::byte* bar) {
      if (bar != nullptr) {
        std::memcpy(bytes.data() + done, bar, part);
      } else {
        std::memset(bytes.data() + done, 0xff, part);
      }
    });
  }
  if (!is_in_config(at, length)) return -EFAULT;
  function_.read_config(at, bytes);
  return static_cast<ssize_t>(length);
}

ssize_t DeviceFile::pwrite(const void* buffer, std::size_t length, std::uint64_t offset) {
  if (!is_user_memory(buffer)) return -EFAULT;
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (!usable_) return -EINVAL;
  if (length == 0) return 0;  // vfio_pci_core_read, vfio_pci_core_write
  if (index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  const std::span bytes(static_cast<const std::byte*>(buffer), length);
  if (index != VFIO_PCI_CONFIG_REGION_INDEX) {
    const bool there = is_there(buffer, length, false);
    return access_bar(index, at, length, there, [&](std::size_t done, std::size_t part, std::byte* bar) {
      if (bar != nullptr) std::memcpy(bar, bytes.data() + done, part);
    });
  }
  if (!is_in_config(at, length) || !is_there(buffer, length, false)) return -EFAULT;
  function_.write_config(at, bytes);
  return static_cast<ssize_t>(length);
}

// vfio_pci_bar_rw, vfio_pci_core_do_io_rw: copy(done, length, where in the BAR), where the vectors' table is left out.
// `is_there`: the caller's memory.
template <typename Copy>
ssize_t DeviceFile::access_bar(std::uint64_t index, std::uint64_t at, std::size_t length, bool is_there, Copy copy) {
  const std::uint64_t size = index == VFIO_PCI_BAR0_REGION_INDEX ? region_size(index) : 0;
  if (at >= size) return -EINVAL;
  const auto [table, table_end] = function_.vector_table();
  const std::uint64_t end = at + std::min<std::uint64_t>(length, size - at);
  std::size_t done = 0;
  while (at < end) {
    const bool is_table = at >= table && at < table_end;
    if (!is_table && !is_there) return -EFAULT;
    if (!is_table && !function_.is_memory_on()) return -EIO;
    const std::uint64_t part = std::min(end, is_table ? table_end : at < table ? table : end) - at;
    copy(done, part, is_table ? nullptr : function_.bar().data() + at);
    done += part;
    at += part;
  }
  return static_cast<ssize_t>(done);
}

std::intptr_t DeviceFile::mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) {
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (!usable_ || (flags & MAP_SHARED) == 0 || index > VFIO_PCI_BAR5_REGION_INDEX) return -EINVAL;
  const std::uint64_t size = region_size(index);
  if (size == 0 || size % 4096 != 0 || at + length > size) return -EINVAL;
  void* const mapped = ::mmap(address, length, protection, flags, function_.bar_fd(), static_cast<off_t>(at));
  return mapped == MAP_FAILED ? -errno : reinterpret_cast<std::intptr_t>(mapped);
}

}  // namespace postern::sim
