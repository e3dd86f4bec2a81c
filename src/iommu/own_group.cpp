// SPDX-License-Identifier: Apache-2.0
// Whether this process has a device's IOMMU group in another container.
#include "iommu/own_group.hpp"

#include <fmt/format.h>

#include <set>

#include "base/words.hpp"

namespace postern {
namespace {

// The files that this process has open; as many as can be read.
std::set<std::string> open_files(Kernel& kernel) {
  const std::string folder = "/proc/self/fd";
  std::vector<std::string> fds;
  std::set<std::string> files;
  if (kernel.list_directory(folder, fds) < 0) return files;
  for (const std::string& fd : fds) {
    std::string file;
    if (kernel.read_link(fmt::format("{}/{}", folder, fd), file) >= 0) files.insert(std::move(file));
  }
  return files;
}

}  // namespace

bool explain_own_group(CallFailed& what, Kernel& kernel, GroupId id, const std::string& device) {
  const auto group = find_iommu_group(kernel, id);
  if (!group) return false;
  const std::set<std::string> files = open_files(kernel);
  std::vector<std::string> others;
  std::vector<std::string> open_others;
  for (const HostDevice& member : group->members) {
    if (member.name == device) continue;
    others.push_back(member.name);
    if (member.cdev && files.contains(member.cdev->path)) open_others.push_back(member.name);
  }
  if (others.empty()) return false;  // it is the device itself that is in use
  if (!open_others.empty()) {
    what.reason = fmt::format("{} of the same IOMMU group {} is in another container of this process",
                              list_text(open_others), to_string(id));
  } else if (files.contains(group->path)) {
    what.reason = fmt::format("its IOMMU group {}, with {}, is in another container of this process", to_string(id),
                              list_text(others));
  } else {
    return false;
  }
  what.kind = ErrorKind::cannot_share;
  what.remedy = RemedyCode::attach_to_that_container;
  return true;
}

}  // namespace postern
