// SPDX-License-Identifier: Apache-2.0
// Function: config space, BARs, and the bus of its hardware.
#include "sim/pci/function.hpp"

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "sim/devices/bar_memory.hpp"

namespace postern::sim {
namespace {

// Offsets of the capabilities.
constexpr std::uint8_t msix_at = 0x40;
constexpr std::uint8_t power_at = 0x50;
constexpr std::uint8_t express_at = 0x60;
constexpr std::uint8_t msi_at = 0xa0;

constexpr std::uint64_t bars_end = PCI_BASE_ADDRESS_5 + 4;

// MSI-X, in BAR 0.
constexpr std::uint32_t vector_table_at = 0x2000;
constexpr std::uint32_t pending_bits_at = 0x3000;
constexpr std::uint64_t vector_size = 16;

void put16(std::span<std::byte> config, std::size_t offset, std::uint16_t value) {
  config[offset] = static_cast<std::byte>(value & 0xff);
  config[offset + 1] = static_cast<std::byte>(value >> 8);
}
void put32(std::span<std::byte> config, std::size_t offset, std::uint32_t value) {
  put16(config, offset, static_cast<std::uint16_t>(value & 0xffff));
  put16(config, offset + 2, static_cast<std::uint16_t>(value >> 16));
}

Interrupts::Counts counts_of(const HardwareInfo& info) {
  return {.intx = info.has_intx ? 1U : 0U, .msi = info.msi_vectors, .msix = info.msix_vectors};
}

}  // namespace

Function::Function(PciAddress address, int group, std::unique_ptr<Hardware> hardware)
    : Device(to_string(address), group),
      address_(address),
      hardware_(std::move(hardware)),
      interrupts_(counts_of(hardware_->info())) {
  make_config();
}

void Function::wrap_hardware(const std::function<std::unique_ptr<Hardware>(std::unique_ptr<Hardware>)>& wrap) {
  hardware_ = wrap(std::move(hardware_));
  hardware_->connect(*this, bars_);
}

std::uint64_t Function::bars_length() const {
  std::uint64_t length = 0;
  for (const Bar& bar : info().bars) length += BarMemory::length_for(bar.size);
  return length;
}

void Function::connect(std::span<std::byte> memory, std::uint64_t offset) {
  for (std::size_t i = 0; i < bars_.size(); ++i) {
    const std::uint32_t size = info().bars[i].size;
    bars_[i] = memory.subspan(offset, size);
    bar_offsets_[i] = offset;
    offset += BarMemory::length_for(size);
  }
  hardware_->connect(*this, bars_);
}

void Function::make_config() {
  const std::span<std::byte> config(config_);
  const HardwareInfo& hardware = info();
  std::fill(config.begin(), config.end(), std::byte{0});
  put16(config, PCI_VENDOR_ID, hardware.vendor);
  put16(config, PCI_DEVICE_ID, hardware.device);
  put32(config, PCI_CLASS_REVISION, hardware.class_code << 8 | hardware.revision);
  put16(config, PCI_SUBSYSTEM_VENDOR_ID, hardware.vendor);
  put16(config, PCI_SUBSYSTEM_ID, hardware.device);
  config[PCI_INTERRUPT_PIN] = std::byte{hardware.has_intx};

  std::size_t link = PCI_CAPABILITY_LIST;  // where the next capability is linked
  const auto add = [&](std::uint8_t at, std::uint8_t id) {
    put16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
    config[link] = std::byte{at};
    config[at] = std::byte{id};
    link = at + std::size_t{1};
  };
  if (hardware.msix_vectors > 0) {
    add(msix_at, PCI_CAP_ID_MSIX);
    put16(config, msix_at + PCI_MSIX_FLAGS, static_cast<std::uint16_t>(hardware.msix_vectors - 1));
    put32(config, msix_at + PCI_MSIX_TABLE, vector_table_at);
    put32(config, msix_at + PCI_MSIX_PBA, pending_bits_at);
  }
  if (hardware.msi_vectors > 0) {
    add(msi_at, PCI_CAP_ID_MSI);
    const auto multiple = static_cast<std::uint32_t>(std::countr_zero(hardware.msi_vectors));
    put16(config, msi_at + PCI_MSI_FLAGS, static_cast<std::uint16_t>(PCI_MSI_FLAGS_64BIT | multiple << 1));
  }
  if (hardware.is_express) {
    add(power_at, PCI_CAP_ID_PM);
    put16(config, power_at + PCI_PM_PMC, 3);
    put16(config, power_at + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET);
    add(express_at, PCI_CAP_ID_EXP);
    put16(config, express_at + PCI_EXP_FLAGS, 2);
    if (hardware.has_flr) put32(config, express_at + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
  }
}

// The bits of a byte that a write through VFIO can change.
std::byte Function::writable(std::uint64_t offset) const {
  constexpr std::uint16_t command = PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE;
  if (offset == PCI_COMMAND) return std::byte{command & 0xff};
  if (offset == PCI_COMMAND + 1) return std::byte{command >> 8};
  if (offset == PCI_CACHE_LINE_SIZE || offset == PCI_INTERRUPT_LINE) return std::byte{0xff};
  if (offset >= PCI_BASE_ADDRESS_0 && offset < bars_end) return std::byte{0xff};
  if (info().is_express && offset == power_at + PCI_PM_CTRL) return std::byte{PCI_PM_CTRL_STATE_MASK};
  return std::byte{0};
}

// A byte of a BAR, whose lower bits encode its size and kind (vfio_bar_fixup, Linux 7.3).
std::byte Function::shown_bar(std::uint64_t offset) const {
  const std::size_t index = (offset - PCI_BASE_ADDRESS_0) / 4;
  const Bar bar = info().bars[index];
  const bool is_upper_half =
      index > 0 && info().bars[index - 1].size != 0 && info().bars[index - 1].kind == Bar::Kind::memory64;
  if (bar.size == 0) return is_upper_half ? config_[offset] : std::byte{0};
  const std::uint32_t kind = bar.kind == Bar::Kind::io         ? PCI_BASE_ADDRESS_SPACE_IO
                             : bar.kind == Bar::Kind::memory64 ? PCI_BASE_ADDRESS_MEM_TYPE_64
                                                               : PCI_BASE_ADDRESS_MEM_TYPE_32;
  const auto shift = 8 * static_cast<unsigned>(offset % 4);
  return (config_[offset] & static_cast<std::byte>(~(bar.size - 1) >> shift & 0xff)) |
         static_cast<std::byte>(kind >> shift & 0xff);
}

// A byte of config space.
std::byte Function::shown(std::uint64_t offset) const {
  if (offset >= PCI_BASE_ADDRESS_0 && offset < bars_end) return shown_bar(offset);
  const std::byte stored = config_[offset];
  if (offset == PCI_STATUS && interrupts_.is_line_up()) return stored | std::byte{PCI_STATUS_INTERRUPT};
  const bool is_msix_control = offset == msix_at + PCI_MSIX_FLAGS + 1;
  if (is_msix_control && interrupts_.uses(VFIO_PCI_MSIX_IRQ_INDEX))
    return stored | std::byte{PCI_MSIX_FLAGS_ENABLE >> 8};
  return stored;
}

void Function::read_config(std::uint64_t offset, std::span<std::byte> bytes) const {
  for (std::byte& byte : bytes) byte = shown(offset++);
}

void Function::write_config(std::uint64_t offset, std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::byte& byte = config_[offset + i];
    byte = (byte & ~writable(offset + i)) | (bytes[i] & writable(offset + i));
  }
  interrupts_.disable_intx(has_command(PCI_COMMAND_INTX_DISABLE));
  // vfio_basic_config_write, vfio_lock_and_set_power_state
  const auto writes = [&](std::uint64_t at) { return offset <= at && at - offset < bytes.size(); };
  if (writes(PCI_COMMAND) || (info().is_express && writes(power_at + PCI_PM_CTRL))) move_dma_bufs(!is_memory_on());
}

void Function::add_dma_buf(const std::shared_ptr<DmaBuf>& dma_buf) {
  std::erase_if(dma_bufs_, [](const auto& each) { return each.expired(); });
  dma_bufs_.push_back(dma_buf);
}

void Function::move_dma_bufs(bool are_revoked) noexcept {
  for (const auto& each : dma_bufs_) {
    if (const auto dma_buf = each.lock()) dma_buf->move(are_revoked);
  }
}

bool Function::is_in_d3hot() const {
  constexpr std::byte state{PCI_PM_CTRL_STATE_MASK};
  return (config_[power_at + PCI_PM_CTRL] & state) == state;
}

// __vfio_pci_memory_enabled
bool Function::is_memory_on() const { return has_command(PCI_COMMAND_MEMORY) && !is_in_d3hot(); }

// Disabled I/O ports do not respond; VFIO does not check whether they are enabled (vfio_pci_core_do_io_rw).
void Function::read_bar(std::size_t index, std::uint64_t offset, std::span<std::byte> bytes) const {
  if (info().bars[index].kind == Bar::Kind::io && !is_io_on()) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  } else {
    std::memcpy(bytes.data(), bars_[index].data() + offset, bytes.size());
  }
}

void Function::write_bar(std::size_t index, std::uint64_t offset, std::span<const std::byte> bytes) {
  if (info().bars[index].kind == Bar::Kind::io && !is_io_on()) return;
  if (hardware_->write(index, offset, bytes)) return;
  std::memcpy(bars_[index].data() + offset, bytes.data(), bytes.size());
}

std::pair<std::uint64_t, std::uint64_t> Function::vector_table() const {
  const std::uint64_t vectors = info().msix_vectors;
  if (vectors == 0) return {0, 0};
  return {vector_table_at, vector_table_at + vectors * vector_size};
}

// Resets the function and enables its BARs (pci_enable_device).
void Function::enable(Process& process) {
  hardware_->reset();
  make_config();
  if (driver == info().variant_driver && hardware_->migratable() != nullptr) {
    variant.emplace(*hardware_->migratable(), process);
  }
  const auto& bars = info().bars;
  const bool has_io =
      std::any_of(bars.begin(), bars.end(), [](const Bar& bar) { return bar.size != 0 && bar.kind == Bar::Kind::io; });
  const std::array command{static_cast<std::byte>(PCI_COMMAND_MEMORY | (has_io ? PCI_COMMAND_IO : 0)), std::byte{0}};
  write_config(PCI_COMMAND, command);
}

// The driver is notified afterwards (pci_error_handlers.reset_done): the DMA log is kept.
void Function::reset() {
  config_[power_at + PCI_PM_CTRL] &= ~std::byte{PCI_PM_CTRL_STATE_MASK};  // to D0
  move_dma_bufs(true);
  hardware_->reset();
  if (is_memory_on()) move_dma_bufs(false);
  if (variant) variant->migration.reset();
}

bool Function::poll() {
  interrupts_.look_for_unmask();
  for (const IoeventfdWrite& write : ioeventfds_.take()) do_ioeventfd(write);
  return hardware_->poll();
}

// vfio_pci_ioeventfd_do_write: as wide as it was asked for, wherever that is; nothing while memory does not answer.
void Function::do_ioeventfd(const IoeventfdWrite& write) {
  if (info().bars[write.bar].kind != Bar::Kind::io && !is_memory_on()) return;
  std::array<std::byte, 8> bytes{};
  for (std::size_t i = 0; i < write.width; ++i) bytes[i] = static_cast<std::byte>(write.value >> (8 * i) & 0xff);
  write_bar(write.bar, write.at, std::span(bytes).first(write.width));
}

void Function::disable() {
  interrupts_.disable();
  ioeventfds_.disable();
  variant.reset();
  low_power = false;
  move_dma_bufs(true);
  dma_bufs_.clear();
  make_config();  // disables bus mastering, with everything else
  hardware_->reset();
}

bool Function::has_command(std::uint16_t bit) const {
  const auto command =
      static_cast<std::uint16_t>(config_[PCI_COMMAND]) | static_cast<std::uint16_t>(config_[PCI_COMMAND + 1]) << 8;
  return (command & bit) != 0;
}

bool Function::dma_read(Iova iova, std::span<std::byte> bytes) {
  return reached() != nullptr && has_command(PCI_COMMAND_MASTER) && reached()->read(iova, bytes);
}

bool Function::dma_write(Iova iova, std::span<const std::byte> bytes) {
  if (variant && has_command(PCI_COMMAND_MASTER)) variant->log.mark(iova, bytes.size());
  return reached() != nullptr && has_command(PCI_COMMAND_MASTER) && reached()->write(iova, bytes);
}

void Function::interrupt(std::uint32_t vector) { interrupts_.raise_message(vector); }

bool Function::signals_messages() const {
  return interrupts_.uses(VFIO_PCI_MSI_IRQ_INDEX) || interrupts_.uses(VFIO_PCI_MSIX_IRQ_INDEX);
}

void Function::set_line(bool up) { interrupts_.set_line(up); }

}  // namespace postern::sim
