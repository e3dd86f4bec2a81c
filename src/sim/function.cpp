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
  if (offset == PCI_CACHE_LINE_SIZE || offset == PCI_LATENCY_TIMER || offset == PCI_INTERRUPT_LINE)
    return std::byte{0xff};
  return std::byte{0};
}

}  // namespace

Function::Function(PciAddress address, int group, std::unique_ptr<Hardware> hardware)
    : address_(address), group_(group), hardware_(std::move(hardware)) {
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
  disable_interrupts();
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
  } else {
    config[PCI_CAPABILITY_LIST] = std::byte{express_at};
  }
  config[express_at] = std::byte{PCI_CAP_ID_EXP};
  put16(config, express_at + PCI_EXP_FLAGS, 2);
  if (hardware.has_flr) put32(config, express_at + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_FLR);
}

void Function::read_config(std::uint64_t offset, std::span<std::byte> bytes) const {
  std::copy_n(config_.begin() + static_cast<std::ptrdiff_t>(offset), bytes.size(), bytes.begin());
}

void Function::write_config(std::uint64_t offset, std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    std::byte& byte = config_[offset + i];
    byte = (byte & ~writable(offset + i)) | (bytes[i] & writable(offset + i));
  }
}

void Function::disable_interrupts() {
  for (auto& [index, eventfds] : interrupts_) {
    for (const int eventfd : eventfds) {
      if (eventfd >= 0) ::close(eventfd);
    }
    eventfds.clear();
  }
}

// VFIO restores config space as it found it, but for the command register's bits that the process turned on.
void Function::reset() {
  hardware_->reset();
  std::array<std::byte, 2> command{};
  read_config(PCI_COMMAND, command);
  make_config();
  write_config(PCI_COMMAND, command);
}

bool Function::is_bus_master() const { return (config_[PCI_COMMAND] & std::byte{PCI_COMMAND_MASTER}) != std::byte{0}; }

bool Function::dma_read(Iova iova, std::span<std::byte> bytes) {
  return domain != nullptr && is_bus_master() && domain->read(iova, bytes);
}

bool Function::dma_write(Iova iova, std::span<const std::byte> bytes) {
  return domain != nullptr && is_bus_master() && domain->write(iova, bytes);
}

void Function::interrupt(std::uint32_t vector) {
  const auto& eventfds = interrupts_[VFIO_PCI_MSIX_IRQ_INDEX];
  if (vector >= eventfds.size() || eventfds[vector] < 0) return;
  constexpr std::uint64_t one = 1;
  // An eventfd takes it unless its counter is full: then somebody has a signal to see anyway.
  (void)!::write(eventfds[vector], &one, sizeof one);
}

}  // namespace postern::sim
