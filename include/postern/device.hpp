// SPDX-License-Identifier: Apache-2.0
// Device: an attached device on any bus: regions, interrupts, reset, features.
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

/// An attached device, made by attach(). Holds its container, so the container outlives it. Destroying it disables its
/// interrupts, closes it and detaches it from the container. An Mmap from map_region() belongs to the caller; release
/// it before the Device. After detach(), all functions that return a Result fail with EBADF.
/// Thread safety: several threads may read, write and use interrupts concurrently. detach() requires that no other
/// thread uses the device. Attaching and detaching use the container, which is for one thread at a time. A child of
/// fork(2) may only destroy its copy, which closes the fd and nothing else (container.hpp).
class POSTERN_API Device {
 public:
  Device(Device&&) noexcept;             ///< moves
  Device& operator=(Device&&) noexcept;  ///< detaches its device, and moves
  ~Device();

  /// Queries the device's regions, interrupts and their capability chains (VFIO_DEVICE_GET_INFO, _GET_REGION_INFO,
  /// _GET_IRQ_INFO). For backends; applications call attach().
  [[nodiscard]] static Result<Device> open(std::unique_ptr<DeviceIo> io, std::shared_ptr<Container> container);

  [[nodiscard]] const std::string& name() const noexcept { return name_; }  ///< name on its bus: "0000:00:01.0"
  /// The container it is attached to; another one after move_device() (attach.hpp).
  [[nodiscard]] const std::shared_ptr<Container>& container() const noexcept { return container_; }
  /// The device fd, for kernel interfaces that the library does not cover (KVM_DEV_VFIO_FILE_ADD, ioctls of newer
  /// kernels). The Device keeps ownership. -1 after detach(), and if the device is not reached by an fd of the kernel.
  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] bool can_reset() const noexcept;  ///< VFIO_DEVICE_FLAGS_RESET
  [[nodiscard]] bool is_pci() const noexcept;     ///< VFIO_DEVICE_FLAGS_PCI

  /// The regions, by index; one that the device does not have has length 0.
  [[nodiscard]] std::span<const Region> regions() const noexcept { return regions_; }
  /// The interrupts, by index; one that the device does not have has count 0.
  [[nodiscard]] std::span<const Interrupt> interrupts() const noexcept { return interrupts_; }

  /// Reads part of a region through the kernel, at any offset and length within it. Access registers with 1, 2, 4 or 8
  /// bytes, naturally aligned: the kernel then makes a single access. Data is little-endian, as on PCI. Errors: ENODEV
  /// (no such region), ERANGE or EOVERFLOW (past its end), EIO (short transfer), EBUSY (another driver holds the BAR),
  /// those of pread(2).
  [[nodiscard]] Result<void> read(std::uint32_t region, std::uint64_t offset, std::span<std::byte> bytes) const;
  /// Writes part of a region; as read(). Errors: those of read() and pwrite(2).
  [[nodiscard]] Result<void> write(std::uint32_t region, std::uint64_t offset, std::span<const std::byte> bytes) const;

  /// Maps part of a region, within one of its mappable areas. Offset and length are multiples of the host's page size,
  /// except that the last page may be partial, so a BAR smaller than a page can be mapped; do not access the rest of
  /// that page. The address is aligned like the offset, up to 1 GiB, so that the kernel can use huge pages for large
  /// BARs (6.12), unless other threads keep taking the addresses tried. Kernel: mmap(2) of the device fd. Errors:
  /// ENODEV (no such region), EINVAL (unaligned), ERANGE or EOVERFLOW (not within a mappable area: they are named),
  /// EBUSY (another driver holds the BAR), those of mmap(2).
  [[nodiscard]] Result<Mmap> map_region(std::uint32_t region, std::uint64_t offset, std::uint64_t length) const;
  /// Maps it at the start of `place`, address space that the caller has reserved (MAP_FIXED), as for a guest's memory
  /// slot; `place.size()` is the length. Unmapping leaves a hole there. Kernel and errors: as above; EINVAL (an
  /// unaligned address).
  [[nodiscard]] Result<Mmap> map_region(std::uint32_t region, std::uint64_t offset, std::span<std::byte> place) const;

  /// Lets vectors first, first+1, ... signal these events, in one VFIO_DEVICE_SET_IRQS. Vectors that were on signal the
  /// new events from then on; those beyond the span stay as they are. If the interrupt is resizable, a `first` above 0
  /// adds vectors to those enabled. After an error all vectors of the span are off, also those that were on before,
  /// unless the library refused. InterruptSet (interrupt_set.hpp) does more: it puts them back, takes single vectors
  /// and other eventfds, and turns off what it turned on. Errors: ENODEV (no such interrupt), EINVAL (no events),
  /// ERANGE (more vectors than it has), EBADF (a moved-from Event), EOPNOTSUPP (not resizable), EBUSY (an InterruptSet
  /// has this interrupt), ENOSPC (the host has fewer vectors left), those of the ioctl (EINVAL: another kind of
  /// interrupt is enabled).
  [[nodiscard]] Result<void> enable_interrupts(std::uint32_t index, std::uint32_t first,
                                               std::span<const Event> events) const;
  /// Disables all vectors of this interrupt. Succeeds if none is enabled. Errors: ENODEV (no such interrupt), EBUSY (an
  /// InterruptSet has it), those of the ioctl.
  [[nodiscard]] Result<void> disable_interrupts(std::uint32_t index) const;
  /// Disables `count` vectors from `first`; the others stay enabled. All vectors of an interrupt: as above. Errors: as
  /// above; EINVAL (`count` is 0), ERANGE (more vectors than it has).
  [[nodiscard]] Result<void> disable_interrupts(std::uint32_t index, std::uint32_t first, std::uint32_t count) const;
  /// Masks a vector of a maskable interrupt. Errors: ENODEV (no such interrupt), those of VFIO_DEVICE_SET_IRQS (ENOTTY:
  /// not maskable; EINVAL: not enabled).
  [[nodiscard]] Result<void> mask_interrupt(std::uint32_t index, std::uint32_t vector) const;
  /// Unmasks a vector. An automasked interrupt (INTx) must be unmasked after it fires, to fire again. Errors: as above.
  [[nodiscard]] Result<void> unmask_interrupt(std::uint32_t index, std::uint32_t vector) const;

  /// Resets the device (VFIO_DEVICE_RESET); on PCI by a function-level reset or a substitute. Registers and config
  /// space are then as after power-on, except what VFIO restores; mappings stay, and interrupts stay enabled: their
  /// vectors signal the same events, once the device's registers are programmed to send them. PciDevice::reset() also
  /// reports the reset method; ResetSet resets a whole slot or bus. Errors: EOPNOTSUPP (the device has no reset), those
  /// of the ioctl (EAGAIN: the device is being unbound, unplugged or reset).
  [[nodiscard]] Result<void> reset() const;

  /// Sets a feature, given by its VFIO number, to `bytes`. Kernel: VFIO_DEVICE_FEATURE. Errors: ENOTTY (the device does
  /// not have the feature), those of the ioctl.
  [[nodiscard]] Result<void> set_feature(std::uint32_t number, std::span<const std::uint8_t> bytes) const;
  /// Reads a feature into `bytes`, from which the kernel takes the arguments, if the feature has some. Returns the
  /// result of the ioctl: 0, or a new descriptor, which the caller closes (VFIO_DEVICE_FEATURE_DMA_BUF; dma_buf.hpp
  /// has a function for it). On an error `bytes` stay as they were. Errors: those of set_feature(); EINVAL (the feature
  /// cannot be read, or has more bytes).
  [[nodiscard]] Result<int> get_feature(std::uint32_t number, std::span<std::uint8_t> bytes) const;
  /// Whether the device has a feature, given by its VFIO number (VFIO_DEVICE_FEATURE_PROBE).
  [[nodiscard]] bool has_feature(std::uint32_t feature) const;
  /// Names of the features the device has, for display: "MIGRATION", "DMA_BUF", ...
  [[nodiscard]] std::vector<std::string_view> features() const;

  /// Closes the device, detaches it from its container and reports errors; the destructor only logs them. With spapr,
  /// while anything is mapped, the group stays in a container that other devices share: the kernel would otherwise
  /// remove their mappings, too.
  [[nodiscard]] Result<void> detach();

 private:
  friend class InterruptSet;  // these use the DeviceIo
  friend class Ioeventfd;
  friend class ResetSet;
  friend Result<void> move_device(Device& device, const std::shared_ptr<Container>& container);
  friend Result<Memory> export_dma_buf(const Device& device, std::uint32_t region, std::uint64_t offset,
                                       std::uint64_t length);

  Device() = default;
  [[nodiscard]] Result<const Region*> find_region(std::uint32_t index) const;
  [[nodiscard]] Result<std::string> check_mapping(const Region& region, std::uint64_t offset,
                                                  std::uint64_t length) const;
  [[nodiscard]] Result<const Interrupt*> find_interrupt(std::uint32_t index) const;
  [[nodiscard]] Result<void> check_not_in_set(std::uint32_t index, const std::string& object) const;
  [[nodiscard]] Result<void> change_mask(std::uint32_t action, std::uint32_t index, std::uint32_t vector) const;
  [[nodiscard]] tl::unexpected<Error> closed() const;

  // Members are destroyed in reverse order: the io closes the device before the container is released.
  std::shared_ptr<Container> container_;
  std::shared_ptr<DeviceIo> io_;  // weakly also of InterruptSets and Ioeventfds
  std::string name_;
  std::uint32_t flags_ = 0;
  std::vector<Region> regions_;
  std::vector<Interrupt> interrupts_;
};

}  // namespace postern
