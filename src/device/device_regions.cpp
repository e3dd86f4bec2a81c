// SPDX-License-Identifier: Apache-2.0
// Device's regions: reading, writing, mapping.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <postern/device.hpp>

#include "base/words.hpp"
#include "device/device_io.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

std::string areas_text(const Region& region) {
  std::vector<std::string> words;
  for (const RegionArea& area : region.mappable_areas) {
    words.push_back(fmt::format("{:#x}-{:#x}", area.offset, area.offset + area.length - 1));
  }
  return list_text(words);
}

Result<void> check_bounds(const std::string& device, const Region& region, std::uint64_t offset, std::uint64_t length) {
  if (length <= region.length && offset <= region.length - length) return {};
  return refusal({.result = offset + length < offset ? -EOVERFLOW : -ERANGE,
                  .object = fmt::format("{} region {} offset {:#x}+{:#x}", device, region.index, offset, length),
                  .reason = fmt::format("the region has {:#x} bytes", region.length)});
}

// What pread or pwrite gave, against what was asked of it.
Result<void> check_transfer(std::string_view call, const std::string& device, const Region& region,
                            std::uint64_t offset, std::size_t length, ssize_t done) {
  if (done == static_cast<ssize_t>(length)) return {};
  CallFailed what{.result = static_cast<int>(done),
                  .object = fmt::format("{} region {} offset {:#x}+{:#x}", device, region.index, offset, length)};
  if (done < 0) return call_failure(call, std::move(what));
  what.result = -EIO;
  what.reason = fmt::format("{} took only {} bytes", call, done);
  return refusal(std::move(what));
}

// Address space of `length` bytes, at an address that is aligned like `offset`, as far as the length goes and up to
// 1 GiB: that lets the kernel use huge pages for a BAR (vfio_pci_mmap_huge_fault, Linux 6.12). Reserves more than is
// needed, and gives back what surrounds the part that suits.
Result<Mmap> reserve_aligned(Kernel& kernel, std::uint64_t length, std::uint64_t offset, std::uint64_t page) {
  const std::uint64_t whole = (length + page - 1) & ~(page - 1);
  const std::uint64_t alignment = std::min(std::bit_floor(whole), std::uint64_t{1} << 30);
  const std::uint64_t reserved = whole + alignment;
  const bool is_too_long = reserved < length;  // the sums came round
  const std::intptr_t space =
      is_too_long ? -ENOMEM
                  : kernel.mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (is_errno(space)) {
    return call_failure(
        "mmap", {.result = static_cast<int>(space), .object = fmt::format("address space of {:#x} bytes", length)});
  }
  const auto start = static_cast<std::uint64_t>(space);
  const std::uint64_t place = start + ((offset - start) & (alignment - 1));
  const std::uint64_t behind = start + reserved - (place + whole);
  if (place > start) kernel.munmap(reinterpret_cast<void*>(start), place - start);
  if (behind > 0) kernel.munmap(reinterpret_cast<void*>(place + whole), behind);
  return Mmap(kernel, reinterpret_cast<void*>(place), length);
}

}  // namespace

Result<const Region*> Device::find_region(std::uint32_t index) const {
  if (!io_) return closed();
  if (index < regions_.size() && regions_[index].length > 0) return &regions_[index];
  return refusal({.result = -ENODEV,
                  .object = fmt::format("{} region {}", name_, index),
                  .reason = "the device has no such region"});
}

Result<void> Device::read(std::uint32_t index, std::uint64_t offset, std::span<std::byte> bytes) const {
  auto region = find_region(index);
  if (!region) return failure_of(region);
  if (auto inside = check_bounds(name_, **region, offset, bytes.size()); !inside) return inside;
  const ssize_t done = io_->read(bytes.data(), bytes.size(), (*region)->offset + offset);
  return check_transfer("pread", name_, **region, offset, bytes.size(), done);
}

Result<void> Device::write(std::uint32_t index, std::uint64_t offset, std::span<const std::byte> bytes) const {
  auto region = find_region(index);
  if (!region) return failure_of(region);
  if (auto inside = check_bounds(name_, **region, offset, bytes.size()); !inside) return inside;
  const ssize_t done = io_->write(bytes.data(), bytes.size(), (*region)->offset + offset);
  return check_transfer("pwrite", name_, **region, offset, bytes.size(), done);
}

Result<Mmap> Device::map_region(std::uint32_t index, std::uint64_t offset, std::uint64_t length) const {
  auto found = find_region(index);
  if (!found) return failure_of(found);
  const Region& region = **found;
  const std::string object = fmt::format("{} region {} offset {:#x}+{:#x}", name_, index, offset, length);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  // The end of a region need not be a page's: then the kernel maps the rest of that, too, which is nobody's
  // (vfio_pci_probe_mmaps).
  const bool ends_region = length <= region.length && offset == region.length - length;
  if (length == 0 || offset % page != 0 || (length % page != 0 && !ends_region)) {
    return refusal({.result = -EINVAL,
                    .object = object,
                    .reason = fmt::format("offset and length must be multiples of {}, unless the region "
                                          "ends there",
                                          size_text(page)),
                    .remedy = "use read() and write() for less"});
  }
  const auto within = [&](const RegionArea& area) {
    return area.offset <= offset && length <= area.length && offset - area.offset <= area.length - length;
  };
  if (std::none_of(region.mappable_areas.begin(), region.mappable_areas.end(), within)) {
    return refusal({.result = offset + length < offset ? -EOVERFLOW : -ERANGE,
                    .object = object,
                    .reason = "not within one area that can be mapped: " + areas_text(region),
                    .remedy = "use read() and write() for the rest"});
  }

  auto place = reserve_aligned(io_->kernel(), length, offset, page);
  if (!place) return place;
  const int protection = (region.readable ? PROT_READ : 0) | (region.writable ? PROT_WRITE : 0);
  const std::intptr_t mapped =
      io_->mmap(place->data(), length, protection, MAP_SHARED | MAP_FIXED, region.offset + offset);
  if (is_errno(mapped)) return call_failure("mmap", {.result = static_cast<int>(mapped), .object = object});
  return place;
}

}  // namespace postern
