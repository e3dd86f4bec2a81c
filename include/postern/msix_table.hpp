// SPDX-License-Identifier: Apache-2.0
// MsixTable: an MSI-X table that a virtual machine monitor keeps for its guest; and where the device's own lies.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/region.hpp>
#include <postern/result.hpp>
#include <vector>

namespace postern {

class PciDevice;

/// Where a device's MSI-X table and its pending bits are. Plain data.
struct MsixLocation {
  std::uint32_t table_bar = 0;       ///< BAR, 0 to 5
  std::uint64_t table_offset = 0;    ///< bytes from the start of that BAR
  std::uint32_t pending_bar = 0;     ///< BAR of the pending bits
  std::uint64_t pending_offset = 0;  ///< bytes from the start of that BAR
  std::uint32_t count = 0;           ///< vectors, 1 to 2048

  static constexpr std::uint64_t entry_size = 16;  ///< bytes of a table entry (PCI_MSIX_ENTRY_SIZE)
  /// Bytes of the table.
  [[nodiscard]] constexpr std::uint64_t table_length() const noexcept { return count * entry_size; }
  /// Bytes of the pending bits, in whole 64-bit words.
  [[nodiscard]] constexpr std::uint64_t pending_length() const noexcept { return (std::uint64_t{count} + 63) / 64 * 8; }
};

/// Reads the MSI-X capability. Thread safety: as Device. Errors: ENODEV (the device has none), EIO (what it names is
/// not within a BAR), those of PciDevice::read_config().
[[nodiscard]] POSTERN_API Result<MsixLocation> find_msix(const PciDevice& device);

/// Returns the parts of a BAR that a VMM may map into its guest, as whole pages: the mappable areas without the pages
/// of the MSI-X table and of the pending bits, which the VMM emulates, and up to the BAR's size in the guest
/// (GuestBar::size). A BAR of less than a page is mappable if the guest sees it with the size of a page. `msix` is what
/// find_msix() returned, or empty if the device has none; `page` is the host's page size, in bytes. Sorted by offset.
/// Thread-safe.
[[nodiscard]] POSTERN_API std::vector<RegionArea> mappable_for_guest(const Region& bar, std::uint64_t guest_size,
                                                                     const std::optional<MsixLocation>& msix,
                                                                     std::uint64_t page);

/// A vector's entry as the guest has written it. Plain data.
struct MsixVector {
  std::uint64_t address = 0;  ///< of the message; with `data` what KVM_SET_GSI_ROUTING takes
  std::uint32_t data = 0;     ///< of the message
  bool masked = true;         ///< PCI_MSIX_ENTRY_CTRL_MASKBIT
};

/// The table and the pending bits that the guest sees; all vectors are masked at first. The VMM traps the guest's
/// accesses, and sets a vector's pending bit if it fires while it is masked. Thread safety: one thread at a time.
class POSTERN_API MsixTable final {
 public:
  /// A table of so many vectors, at most 2048; more are cut off.
  explicit MsixTable(std::uint32_t count);

  /// Reads 4 or 8 bytes of the table, naturally aligned, `offset` bytes from its start. The value is in the host's byte
  /// order. Errors: EINVAL (another width, or unaligned), ERANGE (past the end).
  [[nodiscard]] Result<std::uint64_t> read(std::uint64_t offset, unsigned width) const;
  /// Writes 4 or 8 bytes of the table, and returns the vector whose entry they belong to. Errors: as read().
  [[nodiscard]] Result<std::uint32_t> write(std::uint64_t offset, unsigned width, std::uint64_t value);
  /// Reads 4 or 8 bytes of the pending bits. Errors: as read().
  [[nodiscard]] Result<std::uint64_t> read_pending(std::uint64_t offset, unsigned width) const;

  /// The number of vectors.
  [[nodiscard]] std::uint32_t count() const noexcept { return static_cast<std::uint32_t>(entries_.size()); }
  /// A vector's entry. An invalid index returns a masked entry without a message.
  [[nodiscard]] MsixVector vector(std::uint32_t vector) const noexcept;
  /// Sets or clears a vector's pending bit. Does nothing for an invalid index.
  void set_pending(std::uint32_t vector, bool pending) noexcept;
  [[nodiscard]] bool is_pending(std::uint32_t vector) const noexcept;  ///< false for an invalid index
  void reset() noexcept;                                               ///< as after power-on: all masked, none pending

 private:
  struct Entry {
    std::uint32_t words[4] = {0, 0, 0, 1};  // address, its upper half, data, control: PCI_MSIX_ENTRY_*
    bool pending = false;
  };
  std::vector<Entry> entries_;
};

}  // namespace postern
