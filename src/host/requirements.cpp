// SPDX-License-Identifier: Apache-2.0
// What must hold before a device can be passed through, and what to do where it does not.
#include "host/requirements.hpp"

#include <fcntl.h>
#include <fmt/format.h>

#include <postern/fd.hpp>
#include <postern/locked_memory.hpp>

#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/sysfs.hpp"
#include "host/turn_iommu_on.hpp"

namespace postern {

Result<bool> is_noiommu_group(Kernel& kernel, const std::string& group) {
  const std::string path = "/sys/class/vfio/noiommu-" + group;
  FileStatus status;
  const int result = kernel.status(path, status);
  if (result >= 0) return true;
  if (result == -ENOENT) return false;
  // Unknown: a device without an IOMMU must not count as one with an IOMMU.
  return call_failure("stat", {.result = result,
                               .object = path,
                               .reason = fmt::format("it is unknown whether an IOMMU translates for group {}", group),
                               .remedy = sysfs::shortage_remedy(result)});
}

Result<std::optional<bool>> is_power(Kernel& kernel) {
  const auto cpu = POSTERN_TRY(sysfs::text(kernel, "/proc/cpuinfo"));
  if (!cpu) return std::nullopt;
  const std::string lines = *cpu + "\n";
  return lines.find(": pSeries\n") != std::string::npos || lines.find(": PowerNV\n") != std::string::npos;
}

Result<void> require_iommu(Kernel& kernel) {
  constexpr const char* groups = "/sys/kernel/iommu_groups";
  std::vector<std::string> names;
  if (const int result = kernel.list_directory(groups, names); result < 0) {
    if (result != -ENOENT) {
      return call_failure("opendir", {.result = result,
                                      .object = "host",
                                      .reason = fmt::format("{} cannot be listed", groups),
                                      .remedy = sysfs::shortage_remedy(result)});
    }
    names.clear();
  }
  for (const std::string& name : names) {
    if (!POSTERN_TRY(is_noiommu_group(kernel, name))) return {};
  }
  CallFailed what{.result = -ENODEV,
                  .kind = ErrorKind::no_iommu,
                  .object = "host",
                  .reason = fmt::format("{} {}: the kernel uses no IOMMU", groups,
                                        names.empty() ? "is empty" : "has no group of an IOMMU's")};
  auto remedies = turn_iommu_on(kernel);
  if (remedies) {
    what.remedy = *std::move(remedies);
  } else {
    // No advice is better than advice for another machine.
    what.remedy = RemedyCode::describe_iommu;
    what.causes.push_back(std::move(remedies).error());
  }
  return refusal(std::move(what));
}

Result<void> require_vfio_driver(const HostDevice& device) {
  if (device.is_vfio) return {};
  return refusal({.result = -ENODEV,
                  .kind = ErrorKind::not_bound,
                  .object = device.name,
                  .reason = device.driver ? fmt::format("it is bound to {}, not to a VFIO driver", *device.driver)
                                          : "it is bound to no driver",
                  .remedy = remedy<RemedyCode::bind_to_vfio_driver>(device.name)});
}

Result<GroupId> require_group(Kernel& kernel, const HostDevice& device) {
  if (device.iommu_group && !device.is_noiommu) return *device.iommu_group;
  CallFailed what{.result = -ENODEV, .kind = ErrorKind::no_iommu, .object = device.name};
  what.reason = device.is_noiommu
                    ? "no IOMMU translates for it: VFIO took it in no-IOMMU mode, in which its DMA reaches all of "
                      "memory and mappings are not translated"
                    : "it is in no IOMMU group: no IOMMU that the kernel uses translates for it";
  const auto used = require_iommu(kernel);
  what.remedy = used ? Remedies(remedy<RemedyCode::try_another_slot>(device.name)) : used.error().remedies();
  return refusal(std::move(what));
}

tl::unexpected<Error> no_answer(Kernel& kernel, const std::string& device) {
  const std::string path = "/sys/bus/pci/devices/" + device;
  const std::string power = sysfs::text_if_readable(kernel, path + "/power_state");
  return refusal({.result = -EIO,
                  .kind = ErrorKind::no_answer,
                  .object = device,
                  .reason = fmt::format("the device does not answer: its config space reads as all ones{}",
                                        power.empty() ? "" : fmt::format(" (power state {})", power)),
                  .remedy = remedy<RemedyCode::wake_device>(path)});
}

Result<void> check_responds(Kernel& kernel, const HostDevice& device) {
  // Of config space everybody may read this much, and no more is wanted: reading the rest makes some devices hang.
  const std::string path = device.sysfs_path + "/config";
  const Fd config(kernel, kernel.open(path.c_str(), O_RDONLY));
  if (config.get() == -ENOENT) return {};
  if (!config) return sysfs::unread("open", config.get(), path);
  std::uint32_t revision_and_class = 0;
  constexpr std::uint64_t offset = 8;
  const ssize_t read = kernel.pread(config.get(), &revision_and_class, sizeof revision_and_class, offset);
  if (read < 0) return sysfs::unread("pread", static_cast<int>(read), path);
  if (read != ssize_t{sizeof revision_and_class}) return {};
  return is_no_answer(revision_and_class) ? no_answer(kernel, device.name) : Result<void>();
}

std::string blockers_text(const IommuGroup& group, const GroupAdvice& advice) {
  std::vector<std::string> members;
  for (const HostDevice* member : group.blockers()) {
    members.push_back(fmt::format("{} (driver {})", member->name, member->driver.value_or("none")));
  }
  return fmt::format("the group is not viable: in the way: {}{}{}", list_text(members), advice.why.empty() ? "" : "; ",
                     advice.why);
}

void explain_locked_memory(CallFailed& what, Kernel& kernel, std::uint64_t bytes, LockedMemoryCounter counter) {
  const auto memory = LockedMemory::read(kernel);
  const bool is_limited = !memory || (!memory->exempt && memory->limit);
  if (memory && memory->allows(bytes, counter) && (!is_limited || counter == LockedMemoryCounter::process)) {
    what.reason = "the kernel has no memory for it; the limit of locked memory would allow it";
    return;
  }
  what.kind = ErrorKind::locked_memory;
  if (!memory || memory->allows(bytes, counter)) {
    what.reason = "the kernel has no memory for it, or the user's locked memory is used up by other processes";
    what.remedy = RemedyCode::raise_locked_memory_limit;
    return;
  }
  what.reason = fmt::format("locked memory is limited to {}, {} are in use, and this needs {} more",
                            size_text(*memory->limit), size_text(memory->used(counter)), size_text(bytes));
  what.remedy = memory->raise_limit(bytes, counter);
}

}  // namespace postern
