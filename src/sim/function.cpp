// SPDX-License-Identifier: Apache-2.0
// Function: config space, the BAR's memory, and what its hardware reaches.
#include "sim/function.hpp"

#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace postern::sim {
namespace {

// Where the capabilities stand.
constexpr std::uint8_t msix_at = 0x40;
constexpr std::uint8_t express_at = 0x60;

// Of MSI-X, in BAR 0.
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

// The bits of a byte that a write through VFIO changes.
std::byte writable(std::uint64_t offset) {
  constexpr std::uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE;
  if (offset == PCI_COMMAND) return std::byte{command & 0xff};
  if (offset == PCI_COMMAND + 1) return std::byte{command >> 8};
  if (offset == PCI_CACHE_LINE_SIZE || offset == PCI_INTERRUPT_LINE) return std::byte{0xff};
  if (offset >= PCI_BASE_ADDRESS_0 && offset < PCI_BASE_ADDRESS_2) return std::byte{0xff};
  return std::byte{0};
}

}  // namespace

Function::Function(PciAddress address, int group, std::unique_ptr<Hardware> hardware)
    : address_(address), group_(group), hardware_(std::move(hardware)), interrupts_(hardware_->info().msix_vectors) {
  if (const std::uint32_t size = info().bar_sizes[0]; size != 0) {
    bar_fd_ = ::memfd_create("postern simulated BAR", MFD_CLOEXEC);
    void* const memory = bar_fd_ >= 0 && ::ftruncate(bar_fd_, size) == 0
                             ? ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, bar_fd_, 0)
                             : MAP_FAILED;
    if (memory == MAP_FAILED) throw std::runtime_error("no memory for a simulated BAR");
    bar_ = {static_cast<std::byte*>(memory), size};
  }
  hardware_->connect(*this, bar_);
  make_config();
}

Function::~Function() {
  hardware_.reset();
  if (!bar_.empty()) ::munmap(bar_.data(), bar_.size());
  if (bar_fd_ >= 0) ::close(bar_fd_);
}

void Function::make_config() {
  const std::span<std::byte> config(config_);
  const HardwareInfo& hardware = info();
  std::fill(config.begin(), config.end(), std::byte{0});
  put16(config, PCI_VENDOR_ID, hardware.vendor);
  put16(config, PCI_DEVICE_ID, hardware.device);
  put16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
  put32(config, PCI_CLASS_REVISION, hardware.class_code << 8 | hardware.revision);
  put16(config, PCI_SUBSYSTEM_VENDOR_ID, hardware.vendor);
  put16(config, PCI_SUBSYSTEM_ID, hardware.device);
  if (hardware.msix_vectors > 0) {
    config[PCI_CAPABILITY_LIST] = std::byte{msix_at};
    config[msix_at] = std::byte{PCI_CAP_ID_MSIX};
    config[msix_at + 1] = std::byte{express_at};
    put16(config, msix_at + PCI_MSIX_FLAGS, static_cast<std::uint16_t>(hardware.msix_vectors - 1));
    put32(config, msix_at + PCI_MSIX_TABLE, vector_table_at);
    put32(config, msix_at + PCI_MSIX_PBA, pending_bits_at);
    config[PCI_INTERRUPT_PIN] = std::byte{1};
  } else {
    config[PCI_CAPABILITY_LIST] = std::byte{express_at};
  }
  config[express_at] = std::byte{PCI_CAP_ID_EXP};
  put16(config, express_at + PCI_EXP_FLAGS, 2);
  if (hardware.has_flr) put32(config, express_at + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
}

// A byte of it: a BAR's lower bits tell its size and its kind (vfio_bar_fixup): memory, by 64 bits.
std::byte Function::shown(std::uint64_t offset) const {
  const std::byte stored = config_[offset];
  const std::uint32_t size = info().bar_sizes[0];
  if (size != 0 && offset >= PCI_BASE_ADDRESS_0 && offset < PCI_BASE_ADDRESS_1) {
    const unsigned shift = 8 * static_cast<unsigned>(offset - PCI_BASE_ADDRESS_0);
    const auto kind = static_cast<std::byte>((PCI_BASE_ADDRESS_MEM_TYPE_64 >> shift) & 0xff);
    return (stored & static_cast<std::byte>((~(size - 1) >> shift) & 0xff)) | kind;
  }
  const bool is_msix_control = offset == msix_at + PCI_MSIX_FLAGS + 1;
  if (is_msix_control && interrupts_.uses_msix()) return stored | std::byte{PCI_MSIX_FLAGS_ENABLE >> 8};
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
}

std::pair<std::uint64_t, std::uint64_t> Function::vector_table() const {
  const std::uint64_t vectors = info().msix_vectors;
  if (vectors == 0) return {0, 0};
  return {vector_table_at, vector_table_at + vectors * vector_size};
}

// The function is reset, and its memory on.
void Function::enable() {
  hardware_->reset();
  make_config();
  constexpr std::array<std::byte, 2> command{std::byte{PCI_COMMAND_MEMORY}};
  write_config(PCI_COMMAND, command);
}

void Function::disable() {
  interrupts_.disable();
  low_power = false;
  make_config();  // bus mastering goes off, with all the rest
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
  return reached() != nullptr && has_command(PCI_COMMAND_MASTER) && reached()->write(iova, bytes);
}

void Function::interrupt(std::uint32_t vector) { interrupts_.raise(VFIO_PCI_MSIX_IRQ_INDEX, vector); }

}  // namespace postern::sim
