// SPDX-License-Identifier: Apache-2.0
// Device: reads, writes and maps regions.
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <postern/device.hpp>

#include "base/remedy.hpp"
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

// vfio_pci_core_setup_barmap, vfio_pci_core_mmap: EBUSY comes from pci_request_selected_regions.
void explain_held_bar(CallFailed& what, const std::string& device) {
  if (what.result != -EBUSY) return;
  what.reason =
      "another driver of this host holds the BAR, for example a framebuffer of the boot display (efifb, simpledrm)";
  what.remedy = remedy<RemedyCode::find_bar_holder>(device);
}

// Compares the result of pread or pwrite with the requested length.
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
  what.reason = fmt::format("{} transferred only {} bytes", call, done);
  return refusal(std::move(what));
}

int protection_of(const Region& region) {
  return (region.readable ? PROT_READ : 0) | (region.writable ? PROT_WRITE : 0);
}

// Finds an address with `length` free bytes that is aligned like `offset`, up to the length and to 1 GiB, so that the
// kernel can map a BAR with huge pages (vfio_pci_mmap_huge_fault, Linux 6.12). The address is not reserved.
Result<void*> find_aligned(Kernel& kernel, std::uint64_t length, std::uint64_t offset, std::uint64_t page) {
  const std::uint64_t whole = (length + page - 1) & ~(page - 1);
  const std::uint64_t alignment = std::min(std::bit_floor(whole), std::uint64_t{1} << 30);
  const std::uint64_t reserved = whole + alignment;
  CallFailed what{.object = fmt::format("address space of {:#x} bytes", length)};
  if (reserved < length) {  // the sum overflowed
    what.result = -ENOMEM;
    what.reason = "no process has that much";
    return refusal(std::move(what));
  }
  const std::intptr_t space =
      kernel.mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (is_errno(space)) {
    what.result = static_cast<int>(space);
    return call_failure("mmap", std::move(what));
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
  auto region = POSTERN_TRY(find_region(index));
  POSTERN_TRY(check_bounds(name_, *region, offset, bytes.size()));
  const ssize_t done = io_->read(bytes.data(), bytes.size(), region->offset + offset);
  return check_transfer("pread", name_, *region, offset, bytes.size(), done);
}

Result<void> Device::write(std::uint32_t index, std::uint64_t offset, std::span<const std::byte> bytes) const {
  auto region = POSTERN_TRY(find_region(index));
  POSTERN_TRY(check_bounds(name_, *region, offset, bytes.size()));
  const ssize_t done = io_->write(bytes.data(), bytes.size(), region->offset + offset);
  return check_transfer("pwrite", name_, *region, offset, bytes.size(), done);
}

// Whether this part can be mapped; returns how errors name it.
Result<std::string> Device::check_mapping(const Region& region, std::uint64_t offset, std::uint64_t length) const {
  std::string object = fmt::format("{} region {} offset {:#x}+{:#x}", name_, region.index, offset, length);
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  // A region need not end with a page. The kernel then maps the rest of that page, too, which is unused
  // (vfio_pci_probe_mmaps).
  const bool ends_region = length <= region.length && offset == region.length - length;
  if (length == 0 || offset % page != 0 || (length % page != 0 && !ends_region)) {
    return refusal({.result = -EINVAL,
                    .object = std::move(object),
                    .reason = fmt::format("offset and length must be multiples of {}, unless the region "
                                          "ends there",
                                          size_text(page)),
                    .remedy = RemedyCode::use_read_and_write});
  }
  const auto within = [&](const RegionArea& area) {
    return area.offset <= offset && length <= area.length && offset - area.offset <= area.length - length;
  };
  if (std::none_of(region.mappable_areas.begin(), region.mappable_areas.end(), within)) {
    return refusal({.result = offset + length < offset ? -EOVERFLOW : -ERANGE,
                    .object = std::move(object),
                    .reason = "not within one mappable area: " + areas_text(region),
                    .remedy = RemedyCode::use_read_and_write});
  }
  return object;
}

Result<Mmap> Device::map_region(std::uint32_t index, std::uint64_t offset, std::span<std::byte> place) const {
  const Region& region = *POSTERN_TRY(find_region(index));
  CallFailed what{.object = POSTERN_TRY(check_mapping(region, offset, place.size()))};
  const std::intptr_t mapped =
      io_->mmap(place.data(), place.size(), protection_of(region), MAP_SHARED | MAP_FIXED, region.offset + offset);
  if (!is_errno(mapped)) return Mmap(io_->kernel(), place.data(), place.size());
  what.result = static_cast<int>(mapped);
  explain_held_bar(what, name_);
  return call_failure("mmap", std::move(what));
}

Result<Mmap> Device::map_region(std::uint32_t index, std::uint64_t offset, std::uint64_t length) const {
  const Region& region = *POSTERN_TRY(find_region(index));
  CallFailed what{.object = POSTERN_TRY(check_mapping(region, offset, length))};
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  // Does not map over a reservation with MAP_FIXED: if that fails, Linux may have dropped the reservation, and another
  // thread may have mapped something there. If another thread takes the address first, this tries again, and finally
  // maps without the alignment.
  const auto map = [&](void* place, int flags) {
    return io_->mmap(place, length, protection_of(region), MAP_SHARED | flags, region.offset + offset);
  };
  std::intptr_t mapped = -EEXIST;
  for (int tries = 0; tries < 8 && mapped == -EEXIST; ++tries) {
    auto place = POSTERN_TRY(find_aligned(io_->kernel(), length, offset, page));
    mapped = map(place, MAP_FIXED_NOREPLACE);
  }
  if (mapped == -EEXIST) mapped = map(nullptr, 0);
  if (!is_errno(mapped)) return Mmap(io_->kernel(), reinterpret_cast<void*>(mapped), length);
  what.result = static_cast<int>(mapped);
  explain_held_bar(what, name_);
  return call_failure("mmap", std::move(what));
}

}  // namespace postern
