// SPDX-License-Identifier: Apache-2.0
// VfioPci: reads, writes and maps the regions of a function: config space and BARs (Linux 7.3).
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "sim/vfio/pci/vfio_pci.hpp"

namespace postern::sim {
namespace {

constexpr unsigned region_shift = 40;  // VFIO_PCI_OFFSET_SHIFT
constexpr std::uint64_t region_mask = (std::uint64_t{1} << region_shift) - 1;
constexpr std::uint64_t page = 4096;

// vfio_pci_config_rw_single
bool is_in_config(const Function& function, std::uint64_t at, std::size_t length) {
  return at < function.config_size() && length <= function.config_size() - at;
}

// vfio_pci_probe_mmaps: only memory can be mapped, and less than a page only if the rest of the page is unused.
bool is_mappable(const Bar& bar) {
  return bar.size != 0 && bar.kind != Bar::Kind::io && (bar.size >= page || !bar.shares_page);
}

// The largest access of vfio_pci_core_do_io_rw for this many bytes.
std::size_t access_width(std::uint64_t at, std::uint64_t left) {
  std::size_t width = 8;
  while (left < width || at % width != 0) width /= 2;
  return width;
}

}  // namespace

std::uint64_t VfioPci::region_size(std::uint64_t index) const {
  if (index == VFIO_PCI_CONFIG_REGION_INDEX) return function_.config_size();
  return index <= VFIO_PCI_BAR5_REGION_INDEX ? function_.info().bars[index].size : 0;
}

int VfioPci::get_region_info(vfio_region_info& info) const {
  if (info.argsz < offsetof(vfio_region_info, offset) + sizeof info.offset) return -EINVAL;
  if (info.index >= VFIO_PCI_NUM_REGIONS || info.index == VFIO_PCI_VGA_REGION_INDEX) return -EINVAL;
  info.flags = 0;
  info.offset = std::uint64_t{info.index} << region_shift;
  info.size = region_size(info.index);
  if (info.size == 0) return 0;
  info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  if (info.index == VFIO_PCI_CONFIG_REGION_INDEX || !is_mappable(function_.info().bars[info.index])) return 0;
  info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
  if (function_.info().msix_vectors == 0 || info.index != VFIO_PCI_BAR0_REGION_INDEX) return 0;
  // The MSI-X table is in this BAR, and may be mapped with it.
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

bool VfioPci::is_there(const void* buffer, std::size_t length, bool writable) {
  return length == 0 ||
         machine_.process.check_argument(reinterpret_cast<std::uintptr_t>(buffer), length, writable) == 0;
}

ssize_t VfioPci::read(void* buffer, std::size_t length, std::uint64_t offset) {
  if (!is_there(buffer, length, true)) {
    // Errors of the call itself come first.
    std::vector<std::byte> elsewhere(std::min(length, std::size_t{1} << 20));
    const ssize_t result = read(elsewhere.data(), elsewhere.size(), offset);
    return result > 0 ? -EFAULT : result;
  }
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (length == 0) return 0;  // vfio_pci_core_read, vfio_pci_core_write
  if (index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  const std::span bytes(static_cast<std::byte*>(buffer), length);
  if (index != VFIO_PCI_CONFIG_REGION_INDEX) {
    const auto read = [&](std::size_t done, std::size_t width, std::optional<std::uint64_t> from) {
      const auto part = bytes.subspan(done, width);
      if (from) {
        function_.read_bar(index, *from, part);
      } else {
        std::fill(part.begin(), part.end(), std::byte{0xff});
      }
    };
    return access_bar(index, at, length, true, read);
  }
  if (!is_in_config(function_, at, length)) return -EFAULT;
  function_.read_config(at, bytes);
  return static_cast<ssize_t>(length);
}

ssize_t VfioPci::write(const void* buffer, std::size_t length, std::uint64_t offset) {
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (length == 0) return 0;  // vfio_pci_core_read, vfio_pci_core_write
  if (index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  const std::span bytes(static_cast<const std::byte*>(buffer), length);
  if (index != VFIO_PCI_CONFIG_REGION_INDEX) {
    const auto write = [&](std::size_t done, std::size_t width, std::optional<std::uint64_t> to) {
      if (to) function_.write_bar(index, *to, bytes.subspan(done, width));
    };
    return access_bar(index, at, length, is_there(buffer, length, false), write);
  }
  if (!is_in_config(function_, at, length) || !is_there(buffer, length, false)) return -EFAULT;
  function_.write_config(at, bytes);
  return static_cast<ssize_t>(length);
}

// vfio_pci_bar_rw, vfio_pci_core_do_io_rw: access(done, width, offset in the BAR), except for the MSI-X table.
// `is_there`: checks the caller's memory.
template <typename Access>
ssize_t VfioPci::access_bar(std::uint64_t index, std::uint64_t at, std::size_t length, bool is_there, Access access) {
  const std::uint64_t size = index <= VFIO_PCI_BAR5_REGION_INDEX ? region_size(index) : 0;
  if (at >= size) return -EINVAL;
  const bool is_io = function_.info().bars[index].kind == Bar::Kind::io;
  const auto [table, table_end] =
      index == VFIO_PCI_BAR0_REGION_INDEX ? function_.vector_table() : std::pair{size, size};
  const std::uint64_t end = at + std::min<std::uint64_t>(length, size - at);
  std::size_t done = 0;
  while (at < end) {
    const bool is_table = at >= table && at < table_end;
    if (!is_table && !is_there) return -EFAULT;
    if (!is_table && !is_io && !function_.is_memory_on()) return -EIO;
    const std::uint64_t left = std::min(end, is_table ? table_end : at < table ? table : end) - at;
    const std::uint64_t width = is_table ? left : access_width(at, left);
    access(done, width, is_table ? std::nullopt : std::optional(at));
    done += width;
    at += width;
  }
  return static_cast<ssize_t>(done);
}

std::intptr_t VfioPci::mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) {
  const std::int64_t from = place_in_bars(offset);
  if ((flags & MAP_SHARED) == 0 || from < 0) return -EINVAL;
  const Bar& bar = function_.info().bars[offset >> region_shift];
  if ((offset & region_mask) + length > std::max<std::uint64_t>(bar.size, page)) return -EINVAL;
  void* const mapped = ::mmap(address, length, protection, flags, machine_.bar_memory.fd(), from);
  return mapped == MAP_FAILED ? -errno : reinterpret_cast<std::intptr_t>(mapped);
}

std::int64_t VfioPci::place_in_bars(std::uint64_t offset) const {
  const std::uint64_t index = offset >> region_shift;
  if (index > VFIO_PCI_BAR5_REGION_INDEX || !is_mappable(function_.info().bars[index])) return -EINVAL;
  return static_cast<std::int64_t>(function_.bar_offset(index) + (offset & region_mask));
}

// vfio_pci_ioctl_ioeventfd, vfio_pci_ioeventfd: neither alignment nor what the value needs is looked at.
int VfioPci::set_ioeventfd(const vfio_device_ioeventfd& wanted) {
  if (wanted.argsz < offsetof(vfio_device_ioeventfd, reserved)) return -EINVAL;
  const std::uint32_t width = wanted.flags;
  if ((width & ~std::uint32_t{VFIO_DEVICE_IOEVENTFD_SIZE_MASK}) != 0 || !std::has_single_bit(width) || wanted.fd < -1)
    return -EINVAL;
  const std::uint64_t index = wanted.offset >> region_shift;
  const std::uint64_t at = wanted.offset & region_mask;
  if (index > VFIO_PCI_BAR5_REGION_INDEX || at + width > region_size(index)) return -EINVAL;
  const auto [table, table_end] = index == VFIO_PCI_BAR0_REGION_INDEX ? function_.vector_table() : std::pair{at, at};
  if (at + width > table && at < table_end) return -EINVAL;
  return function_.ioeventfds().set({.bar = index, .at = at, .value = wanted.data, .width = width}, wanted.fd);
}

// vfio_pci_vmf_insert_pfn
bool VfioPci::answers() const { return function_.is_memory_on() && !function_.low_power; }

}  // namespace postern::sim
