// SPDX-License-Identifier: Apache-2.0
// MsixTable: the table's registers, as PCI defines them; and where the device's own table lies.
#include <postern/msix_table.hpp>

#include <fmt/format.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <postern/pci_device.hpp>

#include "kernel/ioctl.hpp"

namespace postern {
namespace {

static_assert(MsixLocation::entry_size == PCI_MSIX_ENTRY_SIZE);
constexpr std::uint32_t most_vectors = PCI_MSIX_FLAGS_QSIZE + 1;
constexpr std::size_t control = PCI_MSIX_ENTRY_VECTOR_CTRL / 4;

// The bits of an entry's words that a guest can change: a message's address is a multiple of 4.
constexpr std::uint32_t writable[4] = {~std::uint32_t{3}, ~std::uint32_t{0}, ~std::uint32_t{0},
                                       PCI_MSIX_ENTRY_CTRL_MASKBIT};

Result<void> check_access(std::string_view object, std::uint64_t offset, unsigned width, std::uint64_t length) {
  CallFailed what{.result = -EINVAL, .object = fmt::format("{} offset {:#x}+{}", object, offset, width)};
  if ((width != 4 && width != 8) || offset % width != 0) {
    what.reason = "an access has 4 or 8 bytes, naturally aligned";
    return refusal(std::move(what));
  }
  if (width <= length && offset <= length - width) return {};
  what.result = -ERANGE;
  what.reason = fmt::format("it has {:#x} bytes", length);
  return refusal(std::move(what));
}

Result<void> check_within(const PciDevice& device, std::string_view part, std::uint32_t bar, std::uint64_t offset,
                          std::uint64_t length) {
  const auto regions = device.device().regions();
  const std::uint64_t size = bar < PCI_STD_NUM_BARS && bar < regions.size() ? regions[bar].length : 0;
  if (length <= size && offset <= size - length) return {};
  return refusal({.result = -EIO,
                  .kind = ErrorKind::invalid_answer,
                  .object = fmt::format("{} {} at BAR {} offset {:#x}+{:#x}", device.name(), part, bar, offset, length),
                  .reason = fmt::format("the BAR has {:#x} bytes", size)});
}

}  // namespace

Result<MsixLocation> find_msix(const PciDevice& device) {
  const PciCapability* const capability = device.find_capability(PCI_CAP_ID_MSIX);
  if (capability == nullptr) {
    return refusal({.result = -ENODEV, .object = device.name(), .reason = "the device has no MSI-X"});
  }
  const auto at = [capability](int offset) { return static_cast<std::uint16_t>(capability->offset + offset); };
  const auto flags = POSTERN_TRY(device.read_config<std::uint16_t>(at(PCI_MSIX_FLAGS)));
  const auto table = POSTERN_TRY(device.read_config<std::uint32_t>(at(PCI_MSIX_TABLE)));
  const auto pending = POSTERN_TRY(device.read_config<std::uint32_t>(at(PCI_MSIX_PBA)));
  const MsixLocation location{.table_bar = table & PCI_MSIX_TABLE_BIR,
                              .table_offset = table & PCI_MSIX_TABLE_OFFSET,
                              .pending_bar = pending & PCI_MSIX_PBA_BIR,
                              .pending_offset = pending & PCI_MSIX_PBA_OFFSET,
                              .count = (flags & std::uint32_t{PCI_MSIX_FLAGS_QSIZE}) + 1};
  POSTERN_TRY(check_within(device, "MSI-X table", location.table_bar, location.table_offset, location.table_length()));
  POSTERN_TRY(check_within(device, "MSI-X pending bits", location.pending_bar, location.pending_offset,
                           location.pending_length()));
  return location;
}

std::vector<RegionArea> mappable_for_guest(const Region& bar, std::uint64_t guest_size,
                                           const std::optional<MsixLocation>& msix, std::uint64_t page) {
  const auto up = [page](std::uint64_t bytes) { return bytes + (page - bytes % page) % page; };
  std::vector<RegionArea> areas;
  for (const RegionArea& area : bar.mappable_areas) {
    const std::uint64_t end = area.offset + area.length;
    // The kernel maps all of the region's last page.
    const std::uint64_t whole = end == bar.length ? up(end) : end - end % page;
    const std::uint64_t last = std::min(whole, guest_size - guest_size % page);
    if (area.offset < last) areas.push_back({area.offset, last - area.offset});
  }
  // Takes the pages of these bytes out of all areas.
  const auto take_out = [&](std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t first = offset - offset % page;
    const std::uint64_t end = up(offset + length);
    std::vector<RegionArea> left;
    for (const RegionArea& area : areas) {
      const std::uint64_t area_end = area.offset + area.length;
      if (area.offset < first) left.push_back({area.offset, std::min(first, area_end) - area.offset});
      if (area_end > end) left.push_back({std::max(end, area.offset), area_end - std::max(end, area.offset)});
    }
    areas = std::move(left);
  };
  if (msix && bar.index == msix->table_bar) take_out(msix->table_offset, msix->table_length());
  if (msix && bar.index == msix->pending_bar) take_out(msix->pending_offset, msix->pending_length());
  std::sort(areas.begin(), areas.end(), [](const RegionArea& a, const RegionArea& b) { return a.offset < b.offset; });
  return areas;
}

MsixTable::MsixTable(std::uint32_t count) : entries_(std::min(count, most_vectors)) {}

Result<std::uint64_t> MsixTable::read(std::uint64_t offset, unsigned width) const {
  POSTERN_TRY(check_access("MSI-X table", offset, width, entries_.size() * MsixLocation::entry_size));
  const Entry& entry = entries_[offset / MsixLocation::entry_size];
  const std::uint64_t word = offset % MsixLocation::entry_size / 4;
  if (width == 4) return entry.words[word];
  return entry.words[word] | std::uint64_t{entry.words[word + 1]} << 32;
}

Result<std::uint32_t> MsixTable::write(std::uint64_t offset, unsigned width, std::uint64_t value) {
  POSTERN_TRY(check_access("MSI-X table", offset, width, entries_.size() * MsixLocation::entry_size));
  const std::uint64_t number = offset / MsixLocation::entry_size;
  const std::uint64_t first = offset % MsixLocation::entry_size / 4;
  for (unsigned i = 0; i < width / 4; ++i) {
    entries_[number].words[first + i] = static_cast<std::uint32_t>(value >> (32 * i)) & writable[first + i];
  }
  return static_cast<std::uint32_t>(number);
}

Result<std::uint64_t> MsixTable::read_pending(std::uint64_t offset, unsigned width) const {
  POSTERN_TRY(check_access("MSI-X pending bits", offset, width, (entries_.size() + 63) / 64 * 8));
  std::uint64_t bits = 0;
  for (std::uint64_t i = 0; i < std::uint64_t{8} * width && offset * 8 + i < entries_.size(); ++i) {
    bits |= std::uint64_t{entries_[offset * 8 + i].pending} << i;
  }
  return bits;
}

MsixVector MsixTable::vector(std::uint32_t vector) const noexcept {
  if (vector >= entries_.size()) return {};
  const auto& words = entries_[vector].words;
  return {.address = words[0] | std::uint64_t{words[1]} << 32,
          .data = words[2],
          .masked = (words[control] & PCI_MSIX_ENTRY_CTRL_MASKBIT) != 0};
}

void MsixTable::set_pending(std::uint32_t vector, bool pending) noexcept {
  if (vector < entries_.size()) entries_[vector].pending = pending;
}
bool MsixTable::is_pending(std::uint32_t vector) const noexcept {
  return vector < entries_.size() && entries_[vector].pending;
}
void MsixTable::reset() noexcept { std::fill(entries_.begin(), entries_.end(), Entry{}); }

}  // namespace postern
