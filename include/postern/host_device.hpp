// SPDX-License-Identifier: Apache-2.0
// HostDevice and IommuGroup: what the host knows of a device before it is passed through, whatever bus it is on.
#pragma once

#include <cstdint>
#include <optional>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

// The number of an IOMMU group, as in /sys/kernel/iommu_groups/N and /dev/vfio/N.
enum class GroupId : std::uint32_t {};
[[nodiscard]] std::string to_string(GroupId group);

// The character device that VFIO makes for one device ("vfio0"), found under its sysfs folder in vfio-dev/.
struct VfioCdev {
  std::string name;             // "vfio0"
  std::string path;             // "/dev/vfio/devices/vfio0"
  std::optional<dev_t> number;  // from vfio-dev/vfioN/dev; missing where the kernel is built without VFIO_DEVICE_CDEV
};

// A snapshot of sysfs; nothing here holds the device.
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
};

struct IommuGroup {
  GroupId id{};
  std::string path;                 // "/dev/vfio/N": the group's node, there once a member is bound to a VFIO driver
  std::vector<HostDevice> members;  // ordered by name

  // The members that stand in the way of passing the group through: those bound to a driver that may do DMA of its own.
  // A member without a driver, or with a VFIO driver or pci-stub or a PCIe port driver, does not
  // (iommu_device_claim_dma_owner, and driver_managed_dma of the driver, Linux 6.0).
  [[nodiscard]] std::vector<const HostDevice*> obstacles() const;
  [[nodiscard]] bool viable() const { return obstacles().empty(); }
};

// Reads a device of a bus. Errors: ENODEV (no such device; the remedy says how to list them), EINVAL (a name that leads
// elsewhere, as "../x" does), those of sysfs.
[[nodiscard]] Result<HostDevice> find_host_device(Kernel& kernel, std::string_view bus, std::string_view name);

// Errors: ENOENT (no such group), those of sysfs.
[[nodiscard]] Result<IommuGroup> find_iommu_group(Kernel& kernel, GroupId group);

// Whether a driver of this name is one of VFIO's ("vfio-pci", its variants, "vfio-platform"), as far as a name tells:
// for drivers that have no device yet. Of a device, HostDevice::is_vfio tells: some vendors' drivers serve VFIO too.
[[nodiscard]] bool is_vfio_driver(std::string_view driver);

}  // namespace postern
