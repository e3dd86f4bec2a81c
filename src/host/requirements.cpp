// SPDX-License-Identifier: Apache-2.0
// What must hold before a device can be passed through, and what to do where it does not.
#include "host/requirements.hpp"

#include <fmt/format.h>

#include <postern/locked_memory.hpp>

#include "base/words.hpp"

namespace postern {
namespace {

constexpr const char* turn_iommu_on =
    "turn the IOMMU on in the firmware (VT-d, AMD-Vi, SMMU) and, for VT-d, on the kernel's command line "
    "(intel_iommu=on)";

}  // namespace

bool is_noiommu_group(Kernel& kernel, const std::string& group) {
  FileStatus status;
  return kernel.status("/sys/class/vfio/noiommu-" + group, status) >= 0;
}

Result<void> require_iommu(Kernel& kernel) {
  constexpr const char* groups = "/sys/kernel/iommu_groups";
  std::vector<std::string> names;
  if (kernel.list_directory(groups, names) < 0) names.clear();
  for (const std::string& name : names) {
    if (!is_noiommu_group(kernel, name)) return {};
  }
  return call_failure("probe", {.result = -ENODEV,
                                .object = "host",
                                .reason = fmt::format("{} {}: the kernel uses no IOMMU", groups,
                                                      names.empty() ? "is empty" : "has no group of an IOMMU's"),
                                .remedy = turn_iommu_on});
}

Result<void> require_vfio_driver(const HostDevice& device) {
  if (device.is_vfio) return {};
  return call_failure("probe",
                      {.result = -ENODEV,
                       .object = device.name,
                       .reason = device.driver ? fmt::format("it is bound to {}, not to a VFIO driver", *device.driver)
                                               : "it is bound to no driver",
                       .remedy = fmt::format("bind it with \"postern bind {}\"", device.name)});
}

Result<GroupId> require_group(const HostDevice& device) {
  if (device.is_noiommu) {
    return call_failure(
        "probe",
        {.result = -ENODEV,
         .object = device.name,
         .reason = "no IOMMU is in front of it: VFIO took it in no-IOMMU mode, in which its DMA reaches all of "
                   "memory and what is mapped is not translated",
         .remedy = turn_iommu_on});
  }
  if (device.iommu_group) return *device.iommu_group;
  return call_failure("probe", {.result = -ENODEV,
                                .object = device.name,
                                .reason = "it is in no IOMMU group: no IOMMU that the kernel uses is in front of it",
                                .remedy = turn_iommu_on});
}

std::string obstacles_text(const IommuGroup& group) {
  std::vector<std::string> members;
  for (const HostDevice* member : group.obstacles()) {
    members.push_back(fmt::format("{} (driver {})", member->name, *member->driver));
  }
  return fmt::format("the group is not viable: in the way: {}", list_text(members));
}

std::string obstacles_remedy(const IommuGroup& group) {
  std::vector<std::string> binds;
  for (const HostDevice* member : group.obstacles()) binds.push_back(fmt::format("\"postern bind {}\"", member->name));
  return fmt::format("give them to VFIO too: {}", list_text(binds));
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

void explain_unsafe_interrupts(CallFailed& what, std::string_view parameter) {
  what.reason = "interrupts of this device cannot be isolated (no interrupt remapping)";
  what.remedy =
      fmt::format("turn interrupt remapping on, or accept the risk with the module parameter {}=1", parameter);
}

}  // namespace postern
