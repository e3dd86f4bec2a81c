// SPDX-License-Identifier: Apache-2.0
// GuestConfig: the config space that a guest sees of a PCI device: capabilities hidden or moved, BARs of its own.
#pragma once

#include <array>
#include <cstdint>
#include <postern/export.hpp>
#include <postern/pci_device.hpp>
#include <postern/result.hpp>
#include <span>
#include <vector>

namespace postern {

/// A BAR as the guest sees it, and where the guest has put it. Plain data.
struct GuestBar {
  std::uint64_t size = 0;     ///< bytes, a power of two; 0: no such BAR, or the upper half of a 64-bit one
  std::uint64_t address = 0;  ///< written by the guest; a multiple of the size
  bool is_io = false;         ///< an I/O BAR
  bool is_64_bit = false;     ///< takes this register and the next
  bool is_on = false;         ///< the guest has enabled decoding, in the command register and in the ROM's own bit
};

/// MSI as the guest has programmed it. Plain data.
struct GuestMsi {
  bool is_on = false;         ///< PCI_MSI_FLAGS_ENABLE
  std::uint32_t count = 1;    ///< vectors that it allows, of those the device has (PCI_MSI_FLAGS_QSIZE)
  std::uint64_t address = 0;  ///< of the messages
  std::uint16_t data = 0;     ///< vector v sends (data & ~(count - 1)) | v
};

/// Presents a device's config space to a guest. A register is the device's own, accessed through VFIO, unless this
/// class emulates it: the BARs (the guest's addresses never reach the device), MSI (without masks of single vectors),
/// the enable and mask bits of MSI-X, and what hide(), move(), make_read_only(), replace() and set_bar_size() change.
/// Call those before the guest runs. Holds no device: pass the one it was made of. Thread safety: one thread at a time.
class POSTERN_API GuestConfig final {
 public:
  /// Reads the device's capabilities and BARs, and turns decoding and bus mastering off, as after power-on. Its config
  /// space has 256 or 4096 bytes. Errors: EIO (the device does not respond), those of Device::read() and write().
  [[nodiscard]] static Result<GuestConfig> of(const PciDevice& device);

  /// Reads 1, 2 or 4 bytes, naturally aligned. The value is in the host's byte order. Errors: EINVAL (another width, or
  /// unaligned), ERANGE (past the end), those of Device::read().
  [[nodiscard]] Result<std::uint32_t> read(const PciDevice& device, std::uint16_t offset, unsigned width) const;
  /// Writes 1, 2 or 4 bytes. Read-only bits keep their value. Compare bar(), msi(), msix_is_on() and msix_is_masked()
  /// before and after to learn what the guest has changed. Errors: as read(); those of Device::write().
  [[nodiscard]] Result<void> write(const PciDevice& device, std::uint16_t offset, unsigned width, std::uint32_t value);

  /// A BAR, 0 to 5, or the expansion ROM, 6. Any other has size 0.
  [[nodiscard]] GuestBar bar(std::uint32_t index) const noexcept;
  [[nodiscard]] GuestMsi msi() const noexcept;  ///< off, if the guest sees no such capability
  /// Whether the guest has enabled MSI-X (PCI_MSIX_FLAGS_ENABLE).
  [[nodiscard]] bool msix_is_on() const noexcept { return msix_has(0x80); }
  /// Whether the guest has masked all vectors of MSI-X (PCI_MSIX_FLAGS_MASKALL).
  [[nodiscard]] bool msix_is_masked() const noexcept { return msix_has(0x40); }
  /// Clears the command register, the BARs' addresses, MSI and MSI-X, as a reset of the guest's machine does. All other
  /// registers are the device's: reset it before, with PciDevice::reset(). Errors: those of Device::write().
  [[nodiscard]] Result<void> reset(const PciDevice& device);

  /// Hides the capability at `offset`, of `length` bytes: unlinks it, and shows zeros instead. Errors: ENOENT (the
  /// guest sees no capability there), EINVAL (`length` is shorter than the capability, where the library knows that, or
  /// runs past the end), EEXIST (another capability starts within it).
  [[nodiscard]] Result<void> hide(std::uint16_t offset, std::uint16_t length);
  /// Moves the capability at `from`, of `length` bytes, to `to`, within the first 256 bytes or within the extended
  /// space. The caller makes sure that the device has nothing at the new place. Errors: those of hide(); EINVAL (`to`
  /// is not a multiple of 4, or outside of that space), EEXIST (the new place overlaps the old one, or another
  /// capability).
  [[nodiscard]] Result<void> move(std::uint16_t from, std::uint16_t to, std::uint16_t length);
  /// Drops the guest's writes to these bytes. Errors: ERANGE (past the end).
  [[nodiscard]] Result<void> make_read_only(std::uint16_t offset, std::uint16_t length);
  /// Shows these bytes instead of the device's, read-only: another device id, for example. Errors: ERANGE (past the
  /// end).
  [[nodiscard]] Result<void> replace(std::uint16_t offset, std::span<const std::uint8_t> bytes);
  /// Shows a BAR with another size: larger, so that a BAR of less than a page has a page of its own; smaller, to hide
  /// its end; 0, to hide it. Clears its address. Errors: ENODEV (no such BAR), EINVAL (not a power of two; below 16
  /// bytes, 4 for I/O, 2 KiB for the ROM; above 2 GiB for 32 bits).
  [[nodiscard]] Result<void> set_bar_size(std::uint32_t index, std::uint64_t size);

 private:
  struct Byte {
    std::uint16_t source = 0;   // offset in the device's config space
    std::uint8_t emulated = 0;  // bits that come from `value`
    std::uint8_t value = 0;
    std::uint8_t writable = 0;   // emulated bits that the guest can change
    bool reaches_device = true;  // the guest's writes do
  };
  struct Bar {
    std::uint64_t size = 0;
    std::uint32_t flags = 0;  // the low bits of the register
  };

  GuestConfig() = default;
  [[nodiscard]] bool msix_has(std::uint8_t bit) const noexcept;
  [[nodiscard]] POSTERN_LOCAL Result<void> check(std::uint16_t offset, unsigned width) const;
  [[nodiscard]] POSTERN_LOCAL Result<void> check_end(std::uint16_t offset, std::size_t length) const;
  [[nodiscard]] POSTERN_LOCAL Result<std::size_t> find(std::uint16_t offset) const;
  [[nodiscard]] POSTERN_LOCAL std::size_t part_end(bool extended) const noexcept;
  [[nodiscard]] POSTERN_LOCAL std::size_t length_of(const PciCapability& capability) const noexcept;
  [[nodiscard]] POSTERN_LOCAL Result<void> check_extent(std::size_t index, std::uint16_t length) const;
  [[nodiscard]] POSTERN_LOCAL std::uint32_t value_at(std::size_t offset) const noexcept;
  POSTERN_LOCAL void show(std::size_t offset, std::uint32_t value, std::uint32_t writable, unsigned width = 4) noexcept;
  POSTERN_LOCAL void show_zeros(std::size_t first, std::size_t end) noexcept;
  [[nodiscard]] POSTERN_LOCAL bool is_upper_half(std::uint32_t bar) const noexcept;
  POSTERN_LOCAL void show_bar(std::uint32_t index) noexcept;
  POSTERN_LOCAL void show_msi() noexcept;
  POSTERN_LOCAL void show_msix_control() noexcept;
  POSTERN_LOCAL void link_capabilities() noexcept;

  std::vector<Byte> bytes_;
  std::array<Bar, 7> bars_;
  std::vector<PciCapability> capabilities_;  // at the guest's offsets, in the order of their lists
  std::uint16_t msi_ = 0;                    // the guest's offset of that capability; 0: none
  std::uint16_t msix_ = 0;                   // the same
  std::uint16_t msi_flags_ = 0;              // of the device
  std::uint8_t command_ = 0;                 // as last written
};

}  // namespace postern
