// SPDX-License-Identifier: Apache-2.0
// Device: the passthrough nature of a device, whatever bus it is on: regions, interrupts, reset, features.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <postern/container.hpp>
#include <postern/event.hpp>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/region.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

class DeviceIo;

// Made by attach(). Holds its container, so that the container cannot go first; letting it go turns its interrupts off,
// closes it and takes it out of the container. A Mmap that it gave stays the caller's: let it go before the Device.
// Thread rules: reads, writes and interrupts may be used by several threads at once; detach() by one, when no other
// uses it; attaching and detaching count as use of the container, which is for one thread at a time. A child of fork(2)
// may let its copy go, which only closes its fd, and calls nothing else of it (container.hpp).
class POSTERN_API Device {
 public:
  Device(Device&&) noexcept;
  Device& operator=(Device&&) noexcept;
  ~Device();

  // Asks the device for everything it has (VFIO_DEVICE_GET_INFO, _GET_REGION_INFO, _GET_IRQ_INFO, with their capability
  // chains). For backends; people use attach().
  [[nodiscard]] static Result<Device> open(std::unique_ptr<DeviceIo> io, std::shared_ptr<Container> container);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }
  [[nodiscard]] const std::shared_ptr<Container>& container() const noexcept { return container_; }
  [[nodiscard]] bool can_reset() const noexcept;  // VFIO_DEVICE_FLAGS_RESET
  [[nodiscard]] bool is_pci() const noexcept;     // VFIO_DEVICE_FLAGS_PCI

  // By index; a region or interrupt that the device does not have has length or count 0.
  [[nodiscard]] std::span<const Region> regions() const noexcept { return regions_; }
  [[nodiscard]] std::span<const Interrupt> interrupts() const noexcept { return interrupts_; }

  // Reads or writes a region through the kernel: any offset, any length within it. For registers use 1, 2, 4 or 8
  // bytes, naturally aligned: the kernel then makes it one access. Little-endian, as PCI is. Errors: ENODEV (no such
  // region), ERANGE (past its end), EIO (short), those of pread(2) and pwrite(2).
  [[nodiscard]] Result<void> read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> bytes) const;
  [[nodiscard]] Result<void> write(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> bytes) const;

  // Maps part of a region, which must lie within one of its mappable areas; offset and length are multiples of the
  // host's page, but that the length may end with the region: so a BAR below a page is mapped, and what the rest of its
  // page holds is not for use. The address is aligned as the offset is, up to 1 GiB, so that the kernel can use huge
  // pages for large BARs (6.12), unless other threads take such addresses away each time that one is tried. Errors:
  // ENODEV (no such region), EINVAL (unaligned), ERANGE (not within a mappable area: they are named), those of mmap(2).
  [[nodiscard]] Result<Mmap> map_region(std::uint32_t region, std::uint64_t offset, std::uint64_t length) const;

  // Lets vectors first, first+1, ... signal these events, all in one VFIO_DEVICE_SET_IRQS. A first above 0 adds vectors
  // to those that are on already, where the interrupt is resizable. Errors: ENODEV (no such interrupt), ERANGE (more
  // vectors than it has), EOPNOTSUPP (adding to one that is not resizable), those of the ioctl.
  [[nodiscard]] Result<void> enable_interrupts(std::uint32_t index, std::uint32_t first,
                                               std::span<const Event> events) const;
  // Turns off all vectors of this interrupt. It is no error if none is on.
  [[nodiscard]] Result<void> disable_interrupts(std::uint32_t index) const;
  // For interrupts that are maskable. After an automasked one (INTx) has fired it must be unmasked to fire again.
  [[nodiscard]] Result<void> mask_interrupt(std::uint32_t index, std::uint32_t vector) const;
  [[nodiscard]] Result<void> unmask_interrupt(std::uint32_t index, std::uint32_t vector) const;

  // VFIO_DEVICE_RESET: for PCI, a function-level reset or what stands in for it. Registers and config space are as
  // after power-on, except what VFIO restores; mappings stay. PciDevice::reset() tells which way it went, and ResetSet
  // resets a whole slot or bus. Errors: EOPNOTSUPP (the device has no reset), those of the ioctl.
  [[nodiscard]] Result<void> reset() const;

  // Whether the device has this feature (VFIO_DEVICE_FEATURE with VFIO_DEVICE_FEATURE_PROBE), by its VFIO number.
  // Sets one, by the bytes that it takes. Errors: ENOTTY (the device does not have it), those of VFIO_DEVICE_FEATURE.
  [[nodiscard]] Result<void> set_feature(std::uint32_t number, std::span<const std::uint8_t> bytes) const;
  [[nodiscard]] bool has_feature(std::uint32_t feature) const;
  // The features it has, by name, for people: "MIGRATION", "DMA_BUF", ...
  [[nodiscard]] std::vector<std::string_view> features() const;

  // Closes the device and takes it out of its container, and says what went wrong; the destructor only logs it. Using
  // the Device afterwards gives EBADF. With spapr its group stays in a container that others share while something is
  // mapped in it: the kernel would take the others' mappings away.
  [[nodiscard]] Result<void> detach();

 private:
  friend class ResetSet;  // which asks through the same DeviceIo

  Device() = default;
  [[nodiscard]] Result<const Region*> find_region(std::uint32_t index) const;
  [[nodiscard]] Result<const Interrupt*> find_interrupt(std::uint32_t index) const;
  [[nodiscard]] Result<void> act_on_interrupt(std::uint32_t index, std::uint32_t action, std::uint32_t first,
                                              std::uint32_t count) const;
  [[nodiscard]] tl::unexpected<Error> closed() const;

  // The order is the order of tear-down, backwards: the io closes the device in its container before the container can
  // go.
  std::shared_ptr<Container> container_;
  std::unique_ptr<DeviceIo> io_;
  std::string name_;
  std::uint32_t flags_ = 0;
  std::vector<Region> regions_;
  std::vector<Interrupt> interrupts_;
};

}  // namespace postern
