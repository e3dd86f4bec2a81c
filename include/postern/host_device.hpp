// SPDX-License-Identifier: Apache-2.0
// HostDevice and IommuGroup: a device of any bus, and its IOMMU group, as sysfs describes them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <postern/descriptors.hpp>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

/// The number of an IOMMU group, as in /sys/kernel/iommu_groups/N and /dev/vfio/N.
enum class GroupId : std::uint32_t {};
/// Formats a group's number: "7". Thread-safe.
[[nodiscard]] POSTERN_API std::string to_string(GroupId group);

/// The VFIO character device of one device, listed in vfio-dev/ of its sysfs directory.
struct VfioCdev {
  std::string name;             ///< "vfio0"
  std::string path;             ///< "/dev/vfio/devices/vfio0"
  std::optional<dev_t> number;  ///< from vfio-dev/vfioN/dev; missing: kernel built without VFIO_DEVICE_CDEV
};

/// The secret shared by the drivers of a physical function and of its virtual functions. If the physical function is
/// bound to vfio-pci, none of them can be opened without it. A UUID, with its bytes in the order of its text form.
struct POSTERN_API VfToken {
  std::array<std::uint8_t, 16> bytes{};  ///< the UUID
  /// Parses "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3". Errors: EINVAL.
  [[nodiscard]] static Result<VfToken> parse(std::string_view uuid);
};
/// Formats a token in the form that VfToken::parse() takes. Thread-safe.
[[nodiscard]] POSTERN_API std::string to_string(const VfToken& token);

/// A device of the host: a snapshot of sysfs, which keeps nothing open but `fd`. Thread safety: as std::string.
struct HostDevice {
  std::string name;                    ///< name on its bus, as VFIO_GROUP_GET_DEVICE_FD takes it: "0000:00:01.0"
  std::string bus;                     ///< "pci", "platform", "ccw", "ap", "mdev"
  std::string sysfs_path;              ///< "/sys/bus/pci/devices/0000:00:01.0"; below its group for a group member
  std::optional<std::string> driver;   ///< bound driver, if any
  std::optional<GroupId> iommu_group;  ///< missing: no IOMMU that the kernel uses translates for the device
  std::optional<VfioCdev> cdev;        ///< present only while it is bound to a VFIO driver
  std::optional<int> numa_node;        ///< NUMA node, if known
  /// Bound to VFIO without an IOMMU (vfio.enable_unsafe_noiommu_mode): its DMA reaches all memory, and VFIO made its
  /// group.
  bool is_noiommu = false;
  /// Bound to a VFIO driver of any name: sysfs has its vfio-dev/. Before Linux 6.1, determined by the group's node and
  /// the driver's name.
  bool is_vfio = false;
  std::optional<VfToken> vf_token;  ///< token to open it with; not in sysfs (see AttachOptions::vf_token)
  /// Its cdev, or its group's node, opened elsewhere, which attach() uses; null: attach() opens one. Not in sysfs.
  std::shared_ptr<GivenFd> fd = {};
};

/// An IOMMU group: a snapshot of sysfs.
struct POSTERN_API IommuGroup {
  GroupId id{};  ///< its number
  /// The group's node, "/dev/vfio/N" or "/dev/vfio/noiommu-N". It exists while a member is bound to a VFIO driver.
  std::string path;
  std::vector<HostDevice> members;  ///< sorted by name

  /// Returns the blockers: members bound to a driver that may do DMA, which keeps the group from being passed through.
  /// Members without a driver, or bound to a VFIO driver, pci-stub, a PCIe port driver (pcieport, shpchp) or fsl_mc_bus
  /// do not block (iommu_device_claim_dma_owner, and the driver's driver_managed_dma, Linux 6.0).
  [[nodiscard]] std::vector<const HostDevice*> blockers() const;
  /// Whether the group has no blockers.
  [[nodiscard]] bool viable() const { return blockers().empty(); }
};

/// How to make a device's group viable.
struct GroupAdvice {
  std::string why;                   ///< why the members share the group; empty if it has one member
  std::vector<std::string> to_bind;  ///< names of the blockers, if all of them can be bound to VFIO
  Remedies remedy;                   ///< empty if no other member blocks
};

/// Advises which other members to bind to VFIO. Thread-safe, as are all functions below. Never proposes the device's
/// physical function, parts of the chipset, members on another bus than PCI, or members that it cannot check for this.
/// Does not check whether the members are in use. The remedy is bind_whole_group with a bind_to_vfio_driver for each
/// member, or leave_group_alone().
[[nodiscard]] POSTERN_API GroupAdvice advise_on_group(Kernel& kernel, const IommuGroup& group,
                                                      const std::string& device);
/// Returns the remedy if some members must keep their drivers; `staying` has a keep_driver for each of them.
[[nodiscard]] POSTERN_API Remedies leave_group_alone(std::span<const Remedy> staying);

/// Reads a device of a bus. Only what does not exist in sysfs (ENOENT) is missing in the result. Errors:
/// ErrorKind::not_found (no such device; the remedy says how to list them), EINVAL (a name that is a path, such as
/// "../x"), those of sysfs.
[[nodiscard]] POSTERN_API Result<HostDevice> find_host_device(Kernel& kernel, std::string_view bus,
                                                              std::string_view name);

/// Reads a group and its members. Errors: ENOENT (no such group), those of sysfs.
[[nodiscard]] POSTERN_API Result<IommuGroup> find_iommu_group(Kernel& kernel, GroupId group);

/// Checks that the kernel uses an IOMMU for at least one device. Errors of this and the next two checks: ENODEV, with a
/// remedy for this machine (its firmware, kernel parameters, hypervisor).
[[nodiscard]] POSTERN_API Result<void> require_iommu(Kernel& kernel);
/// Checks that the device is in the group of an IOMMU, not a no-IOMMU group, and returns the group.
[[nodiscard]] POSTERN_API Result<GroupId> require_group(Kernel& kernel, const HostDevice& device);
/// Checks that the device is bound to a VFIO driver.
[[nodiscard]] POSTERN_API Result<void> require_vfio_driver(const HostDevice& device);

/// Checks that the device responds: that its config space in sysfs, if it has one, does not read as all ones. Errors:
/// ErrorKind::no_answer (EIO), those of sysfs.
[[nodiscard]] POSTERN_API Result<void> check_responds(Kernel& kernel, const HostDevice& device);

/// Returns the name of a virtual function's physical function, if bound to a VFIO driver: opening the device then
/// requires a VF token. Errors: those of sysfs.
[[nodiscard]] POSTERN_API Result<std::optional<std::string>> physical_function_with_token(Kernel& kernel,
                                                                                          const HostDevice& device);

/// Whether the host confines devices to their own interrupts. If it does not, VFIO refuses to attach (EPERM).
struct InterruptIsolation {
  std::optional<bool> isolated;  ///< missing: unknown on this host
  std::string reason;            ///< how this was determined
  Remedies remedy;               ///< if not isolated
};
/// Reads interrupt isolation from /proc/interrupts: what the kernel does, not what the hardware could do. `iommu` names
/// one in /sys/class/iommu ("dmar0"); without it, all are checked.
[[nodiscard]] POSTERN_API InterruptIsolation read_interrupt_isolation(Kernel& kernel,
                                                                      const std::optional<std::string>& iommu);

/// Guesses by name whether a driver is a VFIO driver ("vfio-pci", its variants, "vfio-platform"). For drivers without a
/// device; for a device use HostDevice::is_vfio, which also recognises vendor drivers of other names.
[[nodiscard]] POSTERN_API bool is_vfio_driver(std::string_view driver);

}  // namespace postern
