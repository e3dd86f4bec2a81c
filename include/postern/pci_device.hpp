// SPDX-License-Identifier: Apache-2.0
// PciDevice: an attached PCI device: config space, capabilities, BARs, interrupts by name.
#pragma once

#include <concepts>
#include <cstdint>
#include <postern/device.hpp>
#include <postern/export.hpp>
#include <postern/interrupt_set.hpp>
#include <postern/little_endian.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <vector>

namespace postern {

namespace nvme {
class Owner;
}

/// A capability in config space. Extended capabilities, from offset 0x100, have a separate 16-bit id space.
struct PciCapability {
  std::uint16_t id = 0;      ///< PCI_CAP_ID_* or PCI_EXT_CAP_ID_*
  std::uint16_t offset = 0;  ///< in config space, bytes
  bool extended = false;     ///< from the extended list
};

/// Indices of a PCI device's regions beside the BARs, which are 0 to 5 (VFIO_PCI_ROM_REGION_INDEX, _CONFIG_, _VGA_).
enum PciRegion : std::uint32_t { pci_rom = 6, pci_config = 7, pci_vga = 8 };

/// Kinds of PCI interrupts (VFIO_PCI_*_IRQ_INDEX).
enum class PciInterrupt : std::uint32_t { intx = 0, msi = 1, msix = 2, error = 3, request = 4 };

/// A PCI device; owns its Device. Thread safety: as Device.
class POSTERN_API PciDevice {
 public:
  /// Takes over the device and reads its capability lists. Errors: EINVAL (the device is not PCI), EIO (it has no
  /// config space), those of Device::read().
  [[nodiscard]] static Result<PciDevice> open(Device device);

  [[nodiscard]] Device& device() noexcept { return device_; }              ///< the underlying Device
  [[nodiscard]] const Device& device() const noexcept { return device_; }  ///< the underlying Device
  /// The container that it is attached to.
  [[nodiscard]] const std::shared_ptr<Container>& container() const noexcept { return device_.container(); }
  [[nodiscard]] const std::string& name() const noexcept { return device_.name(); }  ///< its PCI address

  /// Reads config space as VFIO presents it: some fields are virtual (BARs, command). The offset is naturally aligned.
  /// The value is in the host's byte order. Errors: those of Device::read().
  template <std::unsigned_integral T>
  [[nodiscard]] Result<T> read_config(std::uint16_t offset) const {
    T value{};
    auto done = device_.read(pci_config, offset, std::as_writable_bytes(std::span(&value, 1)));
    if (!done) return failure_of(done);
    return little_endian(value);
  }
  /// Writes config space; VFIO drops some writes. Alignment and byte order as above. Errors: those of Device::write().
  template <std::unsigned_integral T>
  [[nodiscard]] Result<void> write_config(std::uint16_t offset, T value) const {
    value = little_endian(value);
    return device_.write(pci_config, offset, std::as_bytes(std::span(&value, 1)));
  }

  /// The capability lists, read once by open(), which stops at loops and invalid offsets.
  [[nodiscard]] std::span<const PciCapability> capabilities() const noexcept { return capabilities_; }
  /// Finds a capability by id; null if the device does not have it.
  [[nodiscard]] const PciCapability* find_capability(std::uint16_t id) const noexcept;
  /// Finds an extended capability by id; null if the device does not have it.
  [[nodiscard]] const PciCapability* find_extended_capability(std::uint16_t id) const noexcept;

  /// Maps a whole BAR (0..5). Errors: those of Device::map_region(); ENODEV (no such BAR), ERANGE (only parts of it can
  /// be mapped).
  [[nodiscard]] Result<Mmap> map_bar(std::uint32_t bar) const;

  /// Enables memory decoding in the command register, so that the device responds to accesses to its memory BARs. This
  /// and the next two functions read, modify and write the register: call them from one thread at a time. Errors: those
  /// of read_config() and write_config().
  [[nodiscard]] Result<void> enable_memory() const;
  /// Enables memory decoding and bus mastering (DMA). A device that was doing DMA before resumes it: make sure it is
  /// idle first. Errors: as enable_memory().
  [[nodiscard]] Result<void> enable_bus_master() const;
  /// Disables bus mastering (DMA). Errors: as enable_memory().
  [[nodiscard]] Result<void> disable_bus_master() const;

  /// Lets vectors 0.. of this kind signal these events; see Device::enable_interrupts(). A second call replaces the
  /// events of as many vectors; those beyond stay enabled. Errors: those of Device::enable_interrupts().
  [[nodiscard]] Result<void> enable(PciInterrupt kind, std::span<const Event> events) const {
    return device_.enable_interrupts(static_cast<std::uint32_t>(kind), 0, events);
  }
  /// Adds vectors, from `first`, to those enabled (MSI-X, Linux 6.5). Errors: those of Device::enable_interrupts().
  [[nodiscard]] Result<void> add(PciInterrupt kind, std::uint32_t first, std::span<const Event> events) const {
    return device_.enable_interrupts(static_cast<std::uint32_t>(kind), first, events);
  }
  /// Disables all vectors of this kind. Errors: those of Device::disable_interrupts().
  [[nodiscard]] Result<void> disable(PciInterrupt kind) const {
    return device_.disable_interrupts(static_cast<std::uint32_t>(kind));
  }
  /// Disables `count` vectors from `first`; the others stay enabled. Errors: those of Device::disable_interrupts().
  [[nodiscard]] Result<void> disable(PciInterrupt kind, std::uint32_t first, std::uint32_t count) const {
    return device_.disable_interrupts(static_cast<std::uint32_t>(kind), first, count);
  }
  /// Enables this kind as an object that changes single vectors and disables them at its end. Errors: those of
  /// InterruptSet::enable().
  [[nodiscard]] Result<InterruptSet> enable_set(PciInterrupt kind, std::span<const EventRef> events = {}) const {
    return InterruptSet::enable(device_, static_cast<std::uint32_t>(kind), events);
  }
  /// The interrupt of this kind; its count is 0 if the device has none.
  [[nodiscard]] const Interrupt& interrupt(PciInterrupt kind) const noexcept;

  /// Resets the function and returns the reset method: "flr", "bus", "pm", ..., the first one in sysfs reset_method;
  /// empty if the kernel does not list them (before 5.15). The default order is device_specific, acpi, flr, af_flr, pm,
  /// bus; an administrator may change it. The kernel tries the next method only if one fails with ENOTTY, as it does if
  /// the device does not come back (__pci_reset_function_locked); the returned name is then wrong. Interrupts stay
  /// enabled, the device's registers do not keep their values: see Device::reset(). Errors: those of Device::reset();
  /// EIO (the device does not respond afterwards).
  [[nodiscard]] Result<std::string> reset() const;
  /// Sets the token with which the virtual functions of this physical function are opened from now on. Kernel:
  /// VFIO_DEVICE_FEATURE_PCI_VF_TOKEN (Linux 5.7). Errors: those of Device::set_feature() (ENOTTY: not a physical
  /// function).
  [[nodiscard]] Result<void> set_vf_token(const VfToken& token) const;
  /// Closes the device and detaches it, as Device::detach(). A driver of the library (nvme::Controller) must have been
  /// destroyed before.
  [[nodiscard]] Result<void> detach() { return device_.detach(); }
  /// Checks that the device responds; one that was removed or is asleep reads as all ones. Errors: EIO, those of
  /// Device::read().
  [[nodiscard]] Result<void> check_responds() const;

  /// Signals `event` on an uncorrectable error of the device (PciInterrupt::error; AER), or when the kernel requests
  /// the device back because it is being unbound or unplugged (PciInterrupt::request): then call detach() soon.
  /// Errors: EINVAL (another kind of interrupt), those of Device::enable_interrupts().
  [[nodiscard]] Result<void> notify(PciInterrupt kind, const Event& event) const;

 private:
  friend class nvme::Owner;
  explicit PciDevice(Device device) : device_(std::move(device)) {}
  [[nodiscard]] Result<void> walk_capabilities();
  [[nodiscard]] Result<void> update_command(std::uint16_t set, std::uint16_t clear) const;

  Device device_;
  std::vector<PciCapability> capabilities_;
  bool is_owned_ = false;  // by a driver of the library; it must then not be moved
};

}  // namespace postern
