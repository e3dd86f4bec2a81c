// SPDX-License-Identifier: Apache-2.0
// What must hold before a device can be passed through, and what to do where it does not.
#include "host/requirements.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <postern/fd.hpp>
#include <postern/locked_memory.hpp>

#include "base/words.hpp"
#include "host/sysfs.hpp"
#include "host/turn_iommu_on.hpp"

namespace postern {

bool is_noiommu_group(Kernel& kernel, const std::string& group) {
  FileStatus status;
  return kernel.status("/sys/class/vfio/noiommu-" + group, status) >= 0;
}

std::optional<bool> is_power(Kernel& kernel) {
  const auto cpu = sysfs::text(kernel, "/proc/cpuinfo");
  if (!cpu) return std::nullopt;
  const std::string lines = *cpu + "\n";
  return lines.find(": pSeries\n") != std::string::npos || lines.find(": PowerNV\n") != std::string::npos;
}

Result<void> require_iommu(Kernel& kernel) {
  constexpr const char* groups = "/sys/kernel/iommu_groups";
  std::vector<std::string> names;
  if (const int result = kernel.list_directory(groups, names); result < 0) {
    if (sysfs::tells_nothing(result)) {
      return call_failure("opendir", {.result = result,
                                      .object = "host",
                                      .reason = fmt::format("{} cannot be listed", groups),
                                      .remedy = sysfs::shortage_remedy(result)});
    }
    names.clear();
  }
  for (const std::string& name : names) {
    if (!is_noiommu_group(kernel, name)) return {};
  }
  return refusal({.result = -ENODEV,
                  .object = "host",
                  .reason = fmt::format("{} {}: the kernel uses no IOMMU", groups,
                                        names.empty() ? "is empty" : "has no group of an IOMMU's"),
                  .remedy = turn_iommu_on(kernel)});
}

Result<void> require_vfio_driver(const HostDevice& device) {
  if (device.is_vfio) return {};
  return refusal({.result = -ENODEV,
                  .object = device.name,
                  .reason = device.driver ? fmt::format("it is bound to {}, not to a VFIO driver", *device.driver)
                                          : "it is bound to no driver",
                  .remedy = fmt::format("bind it with \"postern bind {}\"", device.name)});
}

Result<GroupId> require_group(Kernel& kernel, const HostDevice& device) {
  if (device.iommu_group && !device.is_noiommu) return *device.iommu_group;
  CallFailed what{.result = -ENODEV, .object = device.name};
  what.reason = device.is_noiommu
                    ? "no IOMMU is in front of it: VFIO took it in no-IOMMU mode, in which its DMA reaches all of "
                      "memory and what is mapped is not translated"
                    : "it is in no IOMMU group: no IOMMU that the kernel uses is in front of it";
  const auto used = require_iommu(kernel);
  what.remedy = used ? fmt::format(
                           "other devices have an IOMMU, so this one sits where none reaches ({}): try another "
                           "slot",
                           device.name)
                     : used.error().remedy();
  return refusal(std::move(what));
}

tl::unexpected<Error> no_answer(Kernel& kernel, const std::string& device) {
  const std::string path = "/sys/bus/pci/devices/" + device;
  const std::string power = sysfs::text(kernel, path + "/power_state").value_or("");
  return refusal(
      {.result = -EIO,
       .object = device,
       .reason = fmt::format("the device does not answer: its config space reads as all ones{}",
                             power.empty() ? "" : fmt::format(" (power state {})", power)),
       .remedy = fmt::format("wake it (\"echo on > {0}/power/control\"); if that does not help, take it away and "
                             "look for it again (\"echo 1 > {0}/remove\", \"echo 1 > /sys/bus/pci/rescan\"), or "
                             "turn the machine off and on",
                             path)});
}

Result<void> require_answer(Kernel& kernel, const HostDevice& device) {
  // Of config space everybody may read this much, and no more is wanted: reading the rest makes some devices hang.
  const Fd config(kernel, kernel.open((device.sysfs_path + "/config").c_str(), O_RDONLY));
  std::uint32_t revision_and_class = 0;
  constexpr std::uint64_t offset = 8;
  if (!config || kernel.pread(config.get(), &revision_and_class, sizeof revision_and_class, offset) !=
                     ssize_t{sizeof revision_and_class})
    return {};
  return is_no_answer(revision_and_class) ? no_answer(kernel, device.name) : Result<void>();
}

std::string obstacles_text(const IommuGroup& group, const GroupAdvice& advice) {
  std::vector<std::string> members;
  for (const HostDevice* member : group.obstacles()) {
    members.push_back(fmt::format("{} (driver {})", member->name, member->driver.value_or("none")));
  }
  return fmt::format("the group is not viable: in the way: {}{}{}", list_text(members), advice.why.empty() ? "" : "; ",
                     advice.why);
}

void explain_locked_memory(CallFailed& what, Kernel& kernel, std::uint64_t bytes) {
  const auto memory = LockedMemory::read(kernel);
  if (!memory || memory->allows(bytes)) {
    what.reason = "the kernel has no memory for it, or the user's locked memory is used up by other processes";
    what.remedy = "raise RLIMIT_MEMLOCK (\"ulimit -l\") or run with CAP_IPC_LOCK";
    return;
  }
  const std::uint64_t used = memory->locked + memory->pinned;
  what.reason = fmt::format("locked memory is limited to {}, {} are in use, and this needs {} more",
                            size_text(*memory->limit), size_text(used), size_text(bytes));
  what.remedy =
      fmt::format("raise RLIMIT_MEMLOCK (\"ulimit -l {}\") or run with CAP_IPC_LOCK", (used + bytes + 1023) / 1024);
}

}  // namespace postern
