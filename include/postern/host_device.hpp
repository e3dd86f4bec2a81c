// SPDX-License-Identifier: Apache-2.0
// HostDevice and IommuGroup: what the host knows of a device before it is passed through, whatever bus it is on.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

// The number of an IOMMU group, as in /sys/kernel/iommu_groups/N and /dev/vfio/N.
enum class GroupId : std::uint32_t {};
[[nodiscard]] POSTERN_API std::string to_string(GroupId group);

// The character device that VFIO makes for one device ("vfio0"), found under its sysfs folder in vfio-dev/.
struct VfioCdev {
  std::string name;             // "vfio0"
  std::string path;             // "/dev/vfio/devices/vfio0"
  std::optional<dev_t> number;  // from vfio-dev/vfioN/dev; missing where the kernel is built without VFIO_DEVICE_CDEV
};

// The secret that a physical function's driver and those of its virtual functions share: where the physical function is
// bound to vfio-pci, none of them can be opened without it. A UUID, its bytes in the order in which it is written.
struct POSTERN_API VfToken {
  std::array<std::uint8_t, 16> bytes{};
  // As "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3". Errors: EINVAL.
  [[nodiscard]] static Result<VfToken> parse(std::string_view uuid);
};
[[nodiscard]] POSTERN_API std::string to_string(const VfToken& token);

// A snapshot of sysfs; nothing here holds the device. Thread rules: as for std::string.
struct HostDevice {
  std::string name;                    // as its bus names it: "0000:00:01.0"; what VFIO_GROUP_GET_DEVICE_FD takes
  std::string bus;                     // "pci", "platform", "ccw", "ap", "mdev"
  std::string sysfs_path;              // "/sys/bus/pci/devices/0000:00:01.0"
  std::optional<std::string> driver;   // the driver it is bound to, if any
  std::optional<GroupId> iommu_group;  // missing: the device is behind no IOMMU that the kernel uses
  std::optional<VfioCdev> cdev;        // present only while it is bound to a VFIO driver
  std::optional<int> numa_node;
  // VFIO took it without an IOMMU (vfio.enable_unsafe_noiommu_mode): its DMA reaches all of memory, and its group is
  // one that VFIO made for it.
  bool is_noiommu = false;
  // Its driver gives it to user space through VFIO, whatever the driver is called: sysfs has a vfio-dev/ of it. Where
  // the kernel has no such thing (before Linux 6.1), by the node of its group and the driver's name.
  bool is_vfio = false;
  std::optional<VfToken> vf_token;  // to open it with; sysfs has none (AttachOptions::vf_token)
};

struct POSTERN_API IommuGroup {
  GroupId id{};
  // The group's node, there once a member is bound to a VFIO driver: "/dev/vfio/N", or "/dev/vfio/noiommu-N".
  std::string path;
  std::vector<HostDevice> members;  // ordered by name

  // The members that stand in the way of passing the group through: those bound to a driver that may do DMA of its own.
  // A member without a driver, or with a VFIO driver or pci-stub or a PCIe port driver, does not
  // (iommu_device_claim_dma_owner, and driver_managed_dma of the driver, Linux 6.0).
  [[nodiscard]] std::vector<const HostDevice*> obstacles() const;
  [[nodiscard]] bool viable() const { return obstacles().empty(); }
};

// What a device's group means for it.
struct GroupAdvice {
  std::string why;                   // the members share the group; empty where there is one alone
  std::vector<std::string> to_bind;  // names of those in the way, where all of them can be given to VFIO
  std::string remedy;                // empty where nothing is in the way
};

// What follows is for any thread.

// Never advises to take what the device itself hangs on (its physical function), or what the host does (its chipset).
// Whether somebody uses the others is not looked at: "postern bind" does.
[[nodiscard]] POSTERN_API GroupAdvice advise_on_group(Kernel& kernel, const IommuGroup& group,
                                                      const std::string& device);
// The remedy where some members must stay; `staying` are their names, with the reason of each.
[[nodiscard]] POSTERN_API std::string leave_group_alone(std::span<const std::string> staying);

// Reads a device of a bus. Errors: ENODEV (no such device; the remedy says how to list them), EINVAL (a name that leads
// elsewhere, as "../x" does), those of sysfs.
[[nodiscard]] POSTERN_API Result<HostDevice> find_host_device(Kernel& kernel, std::string_view bus,
                                                              std::string_view name);

// Errors: ENOENT (no such group), those of sysfs.
[[nodiscard]] POSTERN_API Result<IommuGroup> find_iommu_group(Kernel& kernel, GroupId group);

// What must hold of a host and a device before it can be passed through. Errors: ENODEV, with the remedy that fits this
// machine (its firmware, its kernel's parameters, what it runs under).
// The kernel uses an IOMMU for some device at least.
[[nodiscard]] POSTERN_API Result<void> require_iommu(Kernel& kernel);
// The device is in an IOMMU group, and that is an IOMMU's.
[[nodiscard]] POSTERN_API Result<GroupId> require_group(Kernel& kernel, const HostDevice& device);
// The device is bound to a driver that gives it to user space.
[[nodiscard]] POSTERN_API Result<void> require_vfio_driver(const HostDevice& device);

// This process can open a node of VFIO's ("/dev/vfio/2", "/dev/iommu"): it is opened and closed, which opens no device.
// Errors: those of open(2); the remedy says what brings or allows it.
[[nodiscard]] POSTERN_API Result<void> require_node(Kernel& kernel, const std::string& path);
// The device answers, as far as sysfs shows: its config space does not read as all ones. Errors: EIO.
[[nodiscard]] POSTERN_API Result<void> require_answer(Kernel& kernel, const HostDevice& device);

// The physical function of a virtual one, where a VFIO driver has it: then the device wants a VF token.
[[nodiscard]] POSTERN_API std::optional<std::string> physical_function_with_token(Kernel& kernel,
                                                                                  const HostDevice& device);

// Whether a device can raise no interrupts but its own: VFIO refuses it (EPERM) where that is known to be missing.
struct InterruptIsolation {
  std::optional<bool> isolated;  // nothing: this host does not tell
  std::string reason;            // what says so
  std::string remedy;            // where they are not isolated
};
// By what the kernel does (/proc/interrupts). `iommu`: the name of one under /sys/class/iommu ("dmar0"); without one,
// all of them are looked at.
[[nodiscard]] POSTERN_API InterruptIsolation read_interrupt_isolation(Kernel& kernel,
                                                                      const std::optional<std::string>& iommu);
// Whether a backend's kernel module is told to take devices without it (its parameter allow_unsafe_interrupts), and the
// remedy that tells it to.
[[nodiscard]] POSTERN_API bool accepts_unsafe_interrupts(Kernel& kernel, std::string_view backend);
[[nodiscard]] POSTERN_API std::string accept_unsafe_interrupts(std::string_view backend);

// Whether a driver of this name is one of VFIO's ("vfio-pci", its variants, "vfio-platform"), as far as a name tells:
// for drivers that have no device yet. Of a device, HostDevice::is_vfio tells: some vendors' drivers serve VFIO too.
[[nodiscard]] POSTERN_API bool is_vfio_driver(std::string_view driver);

}  // namespace postern
