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

// vfio_pci_core_setup_barmap, vfio_pci_core_mmap: EBUSY is pci_request_selected_regions' word for it.
void explain_held_bar(CallFailed& what, const std::string& device) {
  if (what.result != -EBUSY) return;
  what.reason =
      "another driver of this host holds the BAR, as a framebuffer of the boot display does (efifb, simpledrm)";
  what.remedy = fmt::format(
      "see who does with \"grep -A 4 {} /proc/iomem\"; for a boot display, boot with "
      "\"initcall_blacklist=sysfb_init\", or have another one in the machine",
      device);
}

// What pread or pwrite gave, against what was asked of it.
Result<void> check_transfer(std::string_view call, const std::string& device, const Region& region,
                            std::uint64_t offset, std::size_t length, ssize_t done) {
  if (done == static_cast<ssize_t>(length)) return {};
  CallFailed what{.result = static_cast<int>(done),
                  .object = fmt::format("{} region {} offset {:#x}+{:#x}", device, region.index, offset, length)};
  if (done < 0) {
    explain_held_bar(what, device);
    return call_failure(call, std::move(what));
  }
  what.result = -EIO;
  what.reason = fmt::format("{} took only {} bytes", call, done);
  return refusal(std::move(what));
}

// An address where `length` bytes are free, aligned like `offset`, as far as the length goes and up to 1 GiB: that lets
// the kernel use huge pages for a BAR (vfio_pci_mmap_huge_fault, Linux 6.12). Nothing keeps it free.
Result<void*> find_aligned(Kernel& kernel, std::uint64_t length, std::uint64_t offset, std::uint64_t page) {
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
  kernel.munmap(reinterpret_cast<void*>(start), reserved);
  return reinterpret_cast<void*>(start + ((offset - start) & (alignment - 1)));
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

  // Not over a reservation with MAP_FIXED: where that fails, Linux may have dropped the reservation, and what is there
  // may be another thread's by then. Another thread that is faster here costs a try, and in the end the alignment.
  const int protection = (region.readable ? PROT_READ : 0) | (region.writable ? PROT_WRITE : 0);
  const auto map = [&](void* place, int flags) {
    return io_->mmap(place, length, protection, MAP_SHARED | flags, region.offset + offset);
  };
  std::intptr_t mapped = -EEXIST;
  for (int tries = 0; tries < 8 && mapped == -EEXIST; ++tries) {
    auto place = find_aligned(io_->kernel(), length, offset, page);
    if (!place) return failure_of(place);
    mapped = map(*place, MAP_FIXED_NOREPLACE);
  }
  if (mapped == -EEXIST) mapped = map(nullptr, 0);
  if (!is_errno(mapped)) return Mmap(io_->kernel(), reinterpret_cast<void*>(mapped), length);
  CallFailed what{.result = static_cast<int>(mapped), .object = object};
  explain_held_bar(what, name_);
  return call_failure("mmap", std::move(what));
}

}  // namespace postern
