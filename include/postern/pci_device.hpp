// SPDX-License-Identifier: Apache-2.0
// PciDevice: the PCI nature of a device that is passed through: config space, capabilities, BARs, interrupts by name.
#pragma once

#include <concepts>
#include <cstdint>
#include <postern/device.hpp>
#include <postern/export.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern {

namespace nvme {
class Owner;
}

// A capability in config space. Extended ones (from offset 0x100) have 16-bit ids of their own.
struct PciCapability {
  std::uint16_t id = 0;
  std::uint16_t offset = 0;
  bool extended = false;
};

enum class PciInterrupt : std::uint32_t {
  intx = 0,
  msi = 1,
  msix = 2,
  error = 3,
  request = 4
};  // VFIO_PCI_*_IRQ_INDEX

// Composed of a Device, which it owns. Thread rules: as Device.
class POSTERN_API PciDevice {
 public:
  // Errors: EINVAL (the device is not PCI), EIO (config space cannot be read).
  [[nodiscard]] static Result<PciDevice> open(Device device);

  [[nodiscard]] Device& device() noexcept { return device_; }
  [[nodiscard]] const Device& device() const noexcept { return device_; }
  [[nodiscard]] const std::string& name() const noexcept { return device_.name(); }

  // Config space, as VFIO lets the device see it: some fields are virtual (BARs, command), some writes are dropped.
  // Offset naturally aligned. Errors: those of Device::read and write.
  template <std::unsigned_integral T>
  [[nodiscard]] Result<T> read_config(std::uint16_t offset) const {
    T value{};
    auto done = device_.read(config_region, offset, std::as_writable_bytes(std::span(&value, 1)));
    if (!done) return failure_of(done);
    return value;
  }
  template <std::unsigned_integral T>
  [[nodiscard]] Result<void> write_config(std::uint16_t offset, T value) const {
    return device_.write(config_region, offset, std::as_bytes(std::span(&value, 1)));
  }

  // The capability lists, walked once at open() with loops and bad offsets cut short.
  [[nodiscard]] std::span<const PciCapability> capabilities() const noexcept { return capabilities_; }
  [[nodiscard]] const PciCapability* find_capability(std::uint16_t id) const noexcept;
  [[nodiscard]] const PciCapability* find_extended_capability(std::uint16_t id) const noexcept;

  // Maps a BAR whole (0..5). Errors: those of Device::map_region; ERANGE where only parts of it can be mapped.
  [[nodiscard]] Result<Mmap> map_bar(std::uint32_t bar) const;

  // Lets the device answer accesses to its registers in memory (command register). These three read, change and write
  // the register: call them from one thread at a time.
  [[nodiscard]] Result<void> enable_memory() const;
  // Lets it reach memory, too, or stops it from reaching memory. A device that did DMA before goes on with it: see that
  // it is at rest first.
  [[nodiscard]] Result<void> enable_bus_master() const;
  [[nodiscard]] Result<void> disable_bus_master() const;

  // Vectors 0.. of this kind signal these events; see Device::enable_interrupts().
  [[nodiscard]] Result<void> enable(PciInterrupt kind, std::span<const Event> events) const {
    return device_.enable_interrupts(static_cast<std::uint32_t>(kind), 0, events);
  }
  // More vectors, from `first`, beside those that are on (MSI-X, Linux 6.5).
  [[nodiscard]] Result<void> add(PciInterrupt kind, std::uint32_t first, std::span<const Event> events) const {
    return device_.enable_interrupts(static_cast<std::uint32_t>(kind), first, events);
  }
  [[nodiscard]] Result<void> disable(PciInterrupt kind) const {
    return device_.disable_interrupts(static_cast<std::uint32_t>(kind));
  }
  [[nodiscard]] const Interrupt& interrupt(PciInterrupt kind) const noexcept;

  // Device::reset(), and the way that it went: "flr", "bus", "pm", ... as sysfs has it in reset_method. The order of
  // the ways there is the kernel's (device_specific, acpi, flr, af_flr, pm, bus) unless the administrator wrote
  // another; it takes the first, and goes on to the next only where a device does not come back
  // (__pci_reset_function_locked). Empty where the kernel does not tell (before 5.15). Errors: those of
  // Device::reset().
  // It is well only where the device answers afterwards.
  [[nodiscard]] Result<std::string> reset() const;
  // Of a physical function: the token that its virtual functions are opened with from now on. Errors: ENOTTY (it is no
  // physical function).
  [[nodiscard]] Result<void> set_vf_token(const VfToken& token) const;
  // Whether the device answers at all: one that has left, or sleeps, reads as all ones. Errors: EIO.
  [[nodiscard]] Result<void> require_answer() const;

  // Signals `event` when the device has had an uncorrectable error (PciInterrupt::error; AER), or when the kernel wants
  // the device back, because it is unbound or unplugged (PciInterrupt::request): then detach(), soon.
  [[nodiscard]] Result<void> notify(PciInterrupt kind, const Event& event) const {
    return enable(kind, std::span(&event, 1));
  }

 private:
  friend class nvme::Owner;
  static constexpr std::uint32_t config_region = 7;  // VFIO_PCI_CONFIG_REGION_INDEX
  explicit PciDevice(Device device) : device_(std::move(device)) {}
  [[nodiscard]] Result<void> walk_capabilities();
  [[nodiscard]] Result<void> update_command(std::uint16_t set, std::uint16_t clear) const;

  Device device_;
  std::vector<PciCapability> capabilities_;
  bool is_owned_ = false;  // by a driver of the library, which keeps it where it is
};

}  // namespace postern
