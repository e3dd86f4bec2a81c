// SPDX-License-Identifier: Apache-2.0
// GuestConfig: each byte of config space is the device's, or emulated bit by bit.
#include <postern/guest_config.hpp>

#include <fmt/format.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <algorithm>
#include <bit>

#include "base/words.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

constexpr std::uint32_t rom = VFIO_PCI_ROM_REGION_INDEX;
static_assert(rom == PCI_STD_NUM_BARS);

std::size_t register_of(std::uint32_t bar) { return bar == rom ? PCI_ROM_ADDRESS : PCI_BASE_ADDRESS_0 + 4 * bar; }
std::uint64_t smallest(std::uint32_t bar, std::uint32_t flags) {
  if (bar == rom) return 2048;
  return (flags & PCI_BASE_ADDRESS_SPACE_IO) != 0 ? 4 : 16;
}
bool is_64_bit(std::uint32_t flags) {
  return (flags & (PCI_BASE_ADDRESS_SPACE_IO | PCI_BASE_ADDRESS_MEM_TYPE_MASK)) == PCI_BASE_ADDRESS_MEM_TYPE_64;
}
// A region of another size cannot be a BAR.
std::uint64_t largest(std::uint32_t bar, std::uint32_t flags) {
  if (bar == rom) return std::uint64_t{16} << 20;
  return std::uint64_t{1} << (is_64_bit(flags) ? 63 : 31);
}
std::span<std::byte> bytes_of(std::uint8_t* first, std::size_t count) {
  return std::as_writable_bytes(std::span(first, count));
}
std::size_t msi_data(bool is_64_bit) { return is_64_bit ? PCI_MSI_DATA_64 : PCI_MSI_DATA_32; }
// The part of config space that a capability list is in.
std::size_t part_start(bool extended) { return extended ? PCI_CFG_SPACE_SIZE : PCI_STD_HEADER_SIZEOF; }

}  // namespace

Result<GuestConfig> GuestConfig::of(const PciDevice& device) {
  const auto regions = device.device().regions();
  GuestConfig config;
  const bool is_there = regions.size() > VFIO_PCI_CONFIG_REGION_INDEX;  // not of a device that was moved from
  const std::uint64_t length = is_there ? regions[VFIO_PCI_CONFIG_REGION_INDEX].length : 0;
  config.bytes_.resize(length >= PCI_CFG_SPACE_EXP_SIZE ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE);
  for (std::size_t i = 0; i < config.bytes_.size(); ++i) config.bytes_[i].source = static_cast<std::uint16_t>(i);
  POSTERN_TRY(device.check_responds());
  POSTERN_TRY(device.write_config<std::uint16_t>(PCI_COMMAND, 0));  // VFIO opens devices with decoding on

  for (std::uint32_t i = 0; i <= rom; ++i) {
    Bar& bar = config.bars_[i];
    const std::uint64_t size = i < regions.size() ? regions[i].length : 0;
    if (size == 0 || config.is_upper_half(i)) continue;
    const auto at = static_cast<std::uint16_t>(register_of(i));
    const auto value = POSTERN_TRY(device.read_config<std::uint32_t>(at));
    const bool is_io = (value & PCI_BASE_ADDRESS_SPACE_IO) != 0;
    if (i != rom) bar.flags = value & (is_io ? PCI_BASE_ADDRESS_SPACE_IO : ~PCI_BASE_ADDRESS_MEM_MASK);
    if (i == PCI_STD_NUM_BARS - 1 && is_64_bit(bar.flags)) bar.flags &= ~std::uint32_t{PCI_BASE_ADDRESS_MEM_TYPE_MASK};
    if (size <= largest(i, bar.flags)) bar.size = std::max(std::bit_ceil(size), smallest(i, bar.flags));
  }
  for (std::uint32_t i = 0; i <= rom; ++i) config.show_bar(i);

  config.capabilities_.assign(device.capabilities().begin(), device.capabilities().end());
  if (const PciCapability* msi = device.find_capability(PCI_CAP_ID_MSI)) {
    const auto at = static_cast<std::uint16_t>(msi->offset + PCI_MSI_FLAGS);
    config.msi_flags_ = POSTERN_TRY(device.read_config<std::uint16_t>(at)) & ~PCI_MSI_FLAGS_MASKBIT;
  }
  // A capability that would run out of its part of config space is none.
  std::erase_if(config.capabilities_, [&](const PciCapability& each) {
    return each.offset + config.length_of(each) > config.part_end(each.extended);
  });
  for (const PciCapability& each : config.capabilities_) {
    if (each.extended) continue;
    if (each.id == PCI_CAP_ID_MSIX) config.msix_ = each.offset;
    if (each.id == PCI_CAP_ID_MSI) config.msi_ = each.offset;
  }
  if (config.msi_ != 0) config.show_msi();
  if (config.msix_ != 0) config.show_msix_control();
  config.link_capabilities();
  return config;
}

bool GuestConfig::msix_has(std::uint8_t bit) const noexcept {
  return msix_ != 0 && !bytes_.empty() && (bytes_[msix_ + PCI_MSIX_FLAGS + 1].value & bit) != 0;
}

Result<void> GuestConfig::check_end(std::uint16_t offset, std::size_t length) const {
  if (length <= bytes_.size() && offset <= bytes_.size() - length) return {};
  return refusal({.result = -ERANGE,
                  .object = fmt::format("config space offset {:#x}+{}", offset, length),
                  .reason = fmt::format("it has {} bytes", bytes_.size())});
}

Result<void> GuestConfig::check(std::uint16_t offset, unsigned width) const {
  if ((width != 1 && width != 2 && width != 4) || offset % width != 0) {
    return refusal({.result = -EINVAL,
                    .object = fmt::format("config space offset {:#x}+{}", offset, width),
                    .reason = "an access has 1, 2 or 4 bytes, naturally aligned"});
  }
  return check_end(offset, width);
}

Result<std::uint32_t> GuestConfig::read(const PciDevice& device, std::uint16_t offset, unsigned width) const {
  POSTERN_TRY(check(offset, width));
  const std::span of_device(bytes_.data() + offset, width);
  std::uint8_t got[4] = {};
  const auto is_emulated = [](const Byte& byte) { return byte.emulated == 0xff; };
  if (!std::all_of(of_device.begin(), of_device.end(), is_emulated)) {
    // One access where the device's bytes lie together, as they do but at the ends of what was moved.
    const unsigned step = of_device.back().source == of_device.front().source + width - 1 ? width : 1;
    for (unsigned i = 0; i < width; i += step) {
      POSTERN_TRY(device.device().read(VFIO_PCI_CONFIG_REGION_INDEX, of_device[i].source, bytes_of(got + i, step)));
    }
  }
  std::uint32_t value = 0;
  for (unsigned i = 0; i < width; ++i) {
    const Byte& byte = of_device[i];
    const auto shown = static_cast<std::uint32_t>((got[i] & ~byte.emulated) | (byte.value & byte.emulated));
    value |= shown << (8 * i);
  }
  return value;
}

Result<void> GuestConfig::write(const PciDevice& device, std::uint16_t offset, unsigned width, std::uint32_t value) {
  POSTERN_TRY(check(offset, width));
  const std::span written(bytes_.data() + offset, width);
  const auto reaches = [](const Byte& byte) { return byte.reaches_device && byte.emulated != 0xff; };
  const bool is_one_access = std::all_of(written.begin(), written.end(), reaches) &&
                             written.back().source == written.front().source + width - 1;
  const unsigned step = is_one_access ? width : 1;
  std::uint8_t put[4] = {};
  for (unsigned i = 0; i < width; ++i) put[i] = static_cast<std::uint8_t>(value >> (8 * i));
  for (unsigned i = 0; i < width; i += step) {
    if (!reaches(written[i])) continue;
    POSTERN_TRY(device.device().write(VFIO_PCI_CONFIG_REGION_INDEX, written[i].source, bytes_of(put + i, step)));
    if (offset + i <= PCI_COMMAND && offset + i + step > PCI_COMMAND) command_ = put[PCI_COMMAND - offset];
  }
  for (unsigned i = 0; i < width; ++i) {
    Byte& byte = written[i];
    const auto changes = static_cast<std::uint8_t>(byte.emulated & byte.writable);
    byte.value = static_cast<std::uint8_t>((byte.value & ~changes) | (put[i] & changes));
  }
  return {};
}

std::uint32_t GuestConfig::value_at(std::size_t offset) const noexcept {
  std::uint32_t value = 0;
  for (unsigned i = 0; i < 4 && offset + i < bytes_.size(); ++i)
    value |= std::uint32_t{bytes_[offset + i].value} << (8 * i);
  return value;
}

void GuestConfig::show(std::size_t offset, std::uint32_t value, std::uint32_t writable, unsigned width) noexcept {
  for (unsigned i = 0; i < width && offset + i < bytes_.size(); ++i) {
    Byte& byte = bytes_[offset + i];
    byte.emulated = 0xff;
    byte.value = static_cast<std::uint8_t>(value >> (8 * i));
    byte.writable = static_cast<std::uint8_t>(writable >> (8 * i));
    byte.reaches_device = false;
  }
}

void GuestConfig::show_zeros(std::size_t first, std::size_t end) noexcept {
  for (std::size_t i = first; i < end; ++i) {
    bytes_[i] = {.source = bytes_[i].source, .emulated = 0xff, .reaches_device = false};
  }
}

bool GuestConfig::is_upper_half(std::uint32_t bar) const noexcept {
  return bar > 0 && bar < rom && bars_[bar - 1].size != 0 && is_64_bit(bars_[bar - 1].flags);
}

void GuestConfig::show_bar(std::uint32_t index) noexcept {
  const Bar& bar = bars_[index];
  if (is_upper_half(index)) return;  // shown with the lower one
  const std::uint64_t address_bits = bar.size == 0 ? 0 : ~(bar.size - 1);
  const auto low = static_cast<std::uint32_t>(address_bits);
  show(register_of(index), bar.size == 0 ? 0 : bar.flags,
       index == rom && bar.size != 0 ? low | PCI_ROM_ADDRESS_ENABLE : low);
  if (index + 1 < rom && bar.size != 0 && is_64_bit(bar.flags)) {
    show(register_of(index + 1), 0, static_cast<std::uint32_t>(address_bits >> 32));
  }
}

GuestBar GuestConfig::bar(std::uint32_t index) const noexcept {
  if (index >= bars_.size() || bars_[index].size == 0) return {};
  const Bar& bar = bars_[index];
  GuestBar shown{
      .size = bar.size, .is_io = (bar.flags & PCI_BASE_ADDRESS_SPACE_IO) != 0, .is_64_bit = is_64_bit(bar.flags)};
  const std::uint32_t low = value_at(register_of(index));
  shown.address = low & ~(bar.size - 1);
  if (shown.is_64_bit && index + 1 < rom) shown.address |= std::uint64_t{value_at(register_of(index + 1))} << 32;
  const Byte command = bytes_.empty() ? Byte{} : bytes_[PCI_COMMAND];  // of a moved-from object there is none
  const int decodes = (command_ & ~command.emulated) | (command.value & command.emulated);
  shown.is_on = (decodes & (shown.is_io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)) != 0 &&
                (index != rom || (low & PCI_ROM_ADDRESS_ENABLE) != 0);
  return shown;
}

// VFIO drops the guest's enable bit until the VMM has enabled vectors (vfio_msi_config_write): nothing reaches it.
void GuestConfig::show_msi() noexcept {
  const bool is_64_bit = (msi_flags_ & PCI_MSI_FLAGS_64BIT) != 0;
  const std::size_t data = msi_ + msi_data(is_64_bit);
  constexpr std::uint32_t control = PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE;
  show(msi_ + PCI_MSI_FLAGS, msi_flags_ & ~control, control, 2);
  show(msi_ + PCI_MSI_ADDRESS_LO, 0, ~std::uint32_t{3});
  if (is_64_bit) show(msi_ + PCI_MSI_ADDRESS_HI, 0, ~std::uint32_t{0});
  show(data, 0, 0xffff, 2);
}

GuestMsi GuestConfig::msi() const noexcept {
  if (msi_ == 0) return {};
  const bool is_64_bit = (msi_flags_ & PCI_MSI_FLAGS_64BIT) != 0;
  const std::size_t data = msi_ + msi_data(is_64_bit);
  const std::uint32_t flags = value_at(msi_) >> 16;
  const std::uint32_t asked = (flags & PCI_MSI_FLAGS_QSIZE) >> 4;
  const std::uint32_t has = (msi_flags_ & std::uint32_t{PCI_MSI_FLAGS_QMASK}) >> 1;
  GuestMsi msi{.is_on = (flags & PCI_MSI_FLAGS_ENABLE) != 0,
               .count = std::uint32_t{1} << std::min({asked, has, std::uint32_t{5}}),
               .address = value_at(msi_ + PCI_MSI_ADDRESS_LO),
               .data = static_cast<std::uint16_t>(value_at(data))};
  if (is_64_bit) msi.address |= std::uint64_t{value_at(msi_ + PCI_MSI_ADDRESS_HI)} << 32;
  return msi;
}

void GuestConfig::show_msix_control() noexcept {
  constexpr std::uint8_t emulated = (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8;
  Byte& control = bytes_[msix_ + PCI_MSIX_FLAGS + 1];
  control.emulated = emulated;
  control.value = 0;
  control.writable = emulated;
  control.reaches_device = false;
  bytes_[msix_ + PCI_MSIX_FLAGS].reaches_device = false;
}

Result<void> GuestConfig::reset(const PciDevice& device) {
  POSTERN_TRY(device.write_config<std::uint16_t>(PCI_COMMAND, 0));
  command_ = 0;
  for (Byte& byte : bytes_) byte.value &= static_cast<std::uint8_t>(~byte.writable);
  return {};
}

// ---- Changes by the VMM.

// Links both lists in the order of capabilities_. The first extended capability is at 0x100: a header there without an
// id stands for one that is hidden or moved.
void GuestConfig::link_capabilities() noexcept {
  const auto start = std::find_if(capabilities_.begin(), capabilities_.end(),
                                  [](const PciCapability& each) { return each.offset == PCI_CFG_SPACE_SIZE; });
  if (start != capabilities_.end()) std::rotate(capabilities_.begin(), start, start + 1);
  const auto next_of = [&](bool extended, std::size_t from) -> std::uint16_t {
    for (; from < capabilities_.size(); ++from) {
      if (capabilities_[from].extended == extended) return capabilities_[from].offset;
    }
    return 0;
  };
  const auto set_byte = [&](std::size_t offset, std::uint8_t bits, std::uint32_t value) {
    Byte& byte = bytes_[offset];
    byte.emulated |= bits;
    byte.writable &= static_cast<std::uint8_t>(~bits);
    byte.value = static_cast<std::uint8_t>((byte.value & ~bits) | (value & bits));
    byte.reaches_device = false;
  };
  const auto set_extended_link = [&](std::size_t header, std::uint32_t next) {
    set_byte(header + 2, 0xf0, next << 4);
    set_byte(header + 3, 0xff, next >> 4);
  };
  set_byte(PCI_CAPABILITY_LIST, 0xff, next_of(false, 0));
  if (bytes_.size() > PCI_CFG_SPACE_SIZE && next_of(true, 0) != PCI_CFG_SPACE_SIZE) {
    show(PCI_CFG_SPACE_SIZE, 0, 0);
    set_extended_link(PCI_CFG_SPACE_SIZE, next_of(true, 0));
  }
  for (std::size_t i = 0; i < capabilities_.size(); ++i) {
    const PciCapability& each = capabilities_[i];
    const std::uint16_t next = next_of(each.extended, i + 1);
    if (each.extended) {
      set_extended_link(each.offset, next);
    } else {
      set_byte(each.offset + std::size_t{PCI_CAP_LIST_NEXT}, 0xff, next);
    }
  }
}

Result<std::size_t> GuestConfig::find(std::uint16_t offset) const {
  for (std::size_t i = 0; i < capabilities_.size(); ++i) {
    if (capabilities_[i].offset == offset) return i;
  }
  return refusal({.result = -ENOENT,
                  .object = fmt::format("config space offset {:#x}", offset),
                  .reason = "no capability that the guest sees starts there"});
}

std::size_t GuestConfig::part_end(bool extended) const noexcept {
  return extended ? bytes_.size() : PCI_CFG_SPACE_SIZE;
}

// At least: the capabilities that are emulated are known to their ends.
std::size_t GuestConfig::length_of(const PciCapability& capability) const noexcept {
  if (!capability.extended && capability.id == PCI_CAP_ID_MSIX) return PCI_CAP_MSIX_SIZEOF;
  if (!capability.extended && capability.id == PCI_CAP_ID_MSI) {
    return msi_data((msi_flags_ & PCI_MSI_FLAGS_64BIT) != 0) + sizeof(std::uint16_t);
  }
  return capability.extended ? 4 : 2;
}

Result<void> GuestConfig::check_extent(std::size_t index, std::uint16_t length) const {
  const PciCapability& capability = capabilities_[index];
  CallFailed what{.result = -EINVAL, .object = fmt::format("capability at {:#x}, {} bytes", capability.offset, length)};
  const std::size_t end = std::size_t{capability.offset} + length;
  if (length < length_of(capability) || end > part_end(capability.extended)) {
    what.reason = fmt::format("it has at least {} bytes, and ends below {:#x}", length_of(capability),
                              part_end(capability.extended));
    return refusal(std::move(what));
  }
  for (const PciCapability& other : capabilities_) {
    if (other.offset <= capability.offset || other.offset >= end) continue;
    what.result = -EEXIST;
    what.reason = fmt::format("the next capability starts at {:#x}", other.offset);
    return refusal(std::move(what));
  }
  return {};
}

Result<void> GuestConfig::hide(std::uint16_t offset, std::uint16_t length) {
  const std::size_t index = POSTERN_TRY(find(offset));
  POSTERN_TRY(check_extent(index, length));
  capabilities_.erase(capabilities_.begin() + static_cast<std::ptrdiff_t>(index));
  show_zeros(offset, std::size_t{offset} + length);
  if (offset == msi_) msi_ = 0;
  if (offset == msix_) msix_ = 0;
  link_capabilities();
  return {};
}

Result<void> GuestConfig::move(std::uint16_t from, std::uint16_t to, std::uint16_t length) {
  const std::size_t index = POSTERN_TRY(find(from));
  POSTERN_TRY(check_extent(index, length));
  PciCapability& moved = capabilities_[index];
  CallFailed what{.result = -EINVAL,
                  .object = fmt::format("capability at {:#x}, {} bytes, to {:#x}", from, length, to)};
  const std::size_t end = std::size_t{to} + length;
  if (to % 4 != 0 || to < part_start(moved.extended) || end > part_end(moved.extended)) {
    what.reason = fmt::format("a capability starts at a multiple of 4, and lies within {:#x}-{:#x}",
                              part_start(moved.extended), part_end(moved.extended) - 1);
    return refusal(std::move(what));
  }
  for (const PciCapability& other : capabilities_) {
    const std::size_t other_end = other.offset + (other.offset == from ? length : length_of(other));
    if (other.offset >= end || other_end <= to) continue;
    what.result = -EEXIST;
    what.reason = other.offset == from ? "the new place overlaps the old one"
                                       : fmt::format("it overlaps the capability at {:#x}", other.offset);
    return refusal(std::move(what));
  }
  std::copy_n(bytes_.begin() + from, length, bytes_.begin() + to);
  show_zeros(from, std::size_t{from} + length);
  moved.offset = to;
  if (msi_ == from) msi_ = to;
  if (msix_ == from) msix_ = to;
  link_capabilities();
  return {};
}

Result<void> GuestConfig::make_read_only(std::uint16_t offset, std::uint16_t length) {
  POSTERN_TRY(check_end(offset, length));
  for (std::size_t i = offset; i < std::size_t{offset} + length; ++i) {
    bytes_[i].writable = 0;
    bytes_[i].reaches_device = false;
  }
  return {};
}

Result<void> GuestConfig::replace(std::uint16_t offset, std::span<const std::uint8_t> shown) {
  POSTERN_TRY(check_end(offset, shown.size()));
  show_zeros(offset, offset + shown.size());
  for (std::size_t i = 0; i < shown.size(); ++i) bytes_[offset + i].value = shown[i];
  return {};
}

Result<void> GuestConfig::set_bar_size(std::uint32_t index, std::uint64_t size) {
  CallFailed what{.result = -ENODEV, .object = fmt::format("BAR {}", index), .reason = "the device has no such BAR"};
  if (index >= bars_.size() || bars_[index].size == 0) return refusal(std::move(what));
  Bar& bar = bars_[index];
  const std::uint64_t most = largest(index, bar.flags);
  if (size != 0 && (!std::has_single_bit(size) || size < smallest(index, bar.flags) || size > most)) {
    what.result = -EINVAL;
    what.reason =
        fmt::format("its size is a power of two from {} to {}", size_text(smallest(index, bar.flags)), size_text(most));
    return refusal(std::move(what));
  }
  if (size == 0 && index + 1 < rom && is_64_bit(bar.flags)) show(register_of(index + 1), 0, 0);
  bar.size = size;
  show_bar(index);
  return {};
}

}  // namespace postern
