// SPDX-License-Identifier: Apache-2.0
// Devices and IOMMU groups, from sysfs.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <postern/host_device.hpp>

#include "base/words.hpp"
#include "host/requirements.hpp"
#include "host/sysfs.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// Nothing if the kernel made none.
Result<std::optional<VfioCdev>> read_cdev(Kernel& kernel, const std::string& device_path) {
  const std::string folder = device_path + "/vfio-dev";
  const auto names = POSTERN_TRY(sysfs::entries(kernel, folder));
  if (names.empty()) return std::nullopt;
  const auto number = POSTERN_TRY(sysfs::device_number(kernel, folder + "/" + names.front() + "/dev"));
  return VfioCdev{.name = names.front(), .path = "/dev/vfio/devices/" + names.front(), .number = number};
}

std::optional<GroupId> parse_group(const std::optional<std::string>& name) {
  std::uint32_t id = 0;
  if (!name) return std::nullopt;
  const char* const end = name->data() + name->size();
  const auto read = std::from_chars(name->data(), end, id);
  if (read.ec != std::errc() || read.ptr != end) return std::nullopt;
  return GroupId{id};
}

Result<bool> is_bound_to_vfio(Kernel& kernel, const HostDevice& device) {
  if (device.cdev) return true;
  if (!device.driver || !device.iommu_group || !is_vfio_driver(*device.driver)) return false;
  if (POSTERN_TRY(sysfs::is_there(kernel, "/sys/class/vfio-dev"))) return false;
  // The group's node shows that one of its members is VFIO's, and the name which.
  const std::string node = (device.is_noiommu ? "noiommu-" : "") + to_string(*device.iommu_group);
  return sysfs::is_there(kernel, "/sys/class/vfio/" + node);
}

Result<HostDevice> read_device(Kernel& kernel, std::string bus, std::string name, std::string path) {
  HostDevice device{.name = std::move(name),
                    .bus = std::move(bus),
                    .sysfs_path = std::move(path),
                    .driver = std::nullopt,
                    .iommu_group = std::nullopt,
                    .cdev = std::nullopt,
                    .numa_node = std::nullopt};
  device.driver = POSTERN_TRY(sysfs::link_name(kernel, device.sysfs_path + "/driver"));
  device.iommu_group = parse_group(POSTERN_TRY(sysfs::link_name(kernel, device.sysfs_path + "/iommu_group")));
  device.cdev = POSTERN_TRY(read_cdev(kernel, device.sysfs_path));
  if (device.iommu_group) {
    device.is_noiommu = POSTERN_TRY(is_noiommu_group(kernel, to_string(*device.iommu_group)));
  }
  device.is_vfio = POSTERN_TRY(is_bound_to_vfio(kernel, device));
  // -1 is how the kernel says that there is none.
  const auto node = POSTERN_TRY(sysfs::number(kernel, device.sysfs_path + "/numa_node"));
  if (node && *node >= 0) device.numa_node = static_cast<int>(*node);
  return device;
}

}  // namespace

std::string to_string(GroupId group) { return std::to_string(static_cast<std::uint32_t>(group)); }

bool is_vfio_driver(std::string_view driver) {
  // vfio-pci's variants are named after what they add: mlx5-vfio-pci, hisi_acc_vfio_pci, nvgrace_gpu_vfio_pci,
  // vfio_ccw.
  return driver.find("vfio") != std::string_view::npos;
}

std::vector<const HostDevice*> IommuGroup::blockers() const {
  // Drivers that set driver_managed_dma, or do no DMA, leave the group to user space: pci-stub, the port driver, and
  // those of bridges without a function of their own (iommu_device_use_default_domain, Linux 6.0).
  constexpr std::array<std::string_view, 4> harmless = {"pci-stub", "pcieport", "shpchp", "fsl_mc_bus"};
  std::vector<const HostDevice*> in_the_way;
  for (const HostDevice& member : members) {
    if (!member.driver || member.is_vfio) continue;
    if (std::find(harmless.begin(), harmless.end(), *member.driver) == harmless.end()) in_the_way.push_back(&member);
  }
  return in_the_way;
}

Result<HostDevice> find_host_device(Kernel& kernel, std::string_view bus, std::string_view name) {
  if (!sysfs::is_entry(bus) || !sysfs::is_entry(name)) {
    return refusal({.result = -EINVAL,
                    .object = fmt::format("{} device {}", bus, name),
                    .reason = "this is not the name of a bus and a device",
                    .remedy = RemedyCode::list_devices});
  }
  std::string path = fmt::format("/sys/bus/{}/devices/{}", bus, name);
  FileStatus status;
  if (const int result = kernel.status(path, status); result < 0) {
    if (result != -ENOENT) return sysfs::unread("stat", result, path);
    return call_failure("stat", {.result = result,
                                 .kind = ErrorKind::not_found,
                                 .object = fmt::format("{} device {}", bus, name),
                                 .reason = fmt::format("{} does not exist", path),
                                 .remedy = RemedyCode::list_devices});
  }
  return read_device(kernel, std::string(bus), std::string(name), std::move(path));
}

Result<IommuGroup> find_iommu_group(Kernel& kernel, GroupId group) {
  const std::string folder = fmt::format("/sys/kernel/iommu_groups/{}/devices", to_string(group));
  std::vector<std::string> names;
  if (const int result = kernel.list_directory(folder, names); result < 0) {
    if (result != -ENOENT) return sysfs::unread("opendir", result, folder);
    return call_failure("opendir", {.result = result, .object = "IOMMU group " + to_string(group)});
  }
  const char* const prefix = POSTERN_TRY(is_noiommu_group(kernel, to_string(group))) ? "noiommu-" : "";
  IommuGroup found{.id = group, .path = "/dev/vfio/" + (prefix + to_string(group)), .members = {}};
  for (std::string& name : names) {
    std::string path = fmt::format("{}/{}", folder, name);
    std::string bus = POSTERN_TRY(sysfs::link_name(kernel, path + "/subsystem")).value_or("unknown");
    found.members.push_back(POSTERN_TRY(read_device(kernel, std::move(bus), std::move(name), std::move(path))));
  }
  return found;
}

}  // namespace postern
