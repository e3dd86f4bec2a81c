// SPDX-License-Identifier: Apache-2.0
// Which processes have a device node open.
#include "host/holders.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "text/names.hpp"

namespace postern::tool {
namespace {

// The pid that a name under /proc stands for; 0 where it is something else.
unsigned long pid_of(const std::string& name) {
  unsigned long pid = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data(), end, pid);
  return error == std::errc() && rest == end ? pid : 0;
}

bool holds_one_of(Kernel& kernel, const std::string& process, std::span<const std::string> paths, bool& hidden) {
  const std::string folder = process + "/fd";
  std::vector<std::string> fds;
  if (const int result = kernel.list_directory(folder, fds); result < 0) {
    // One that has ended since is not hidden.
    hidden = hidden || result == -EACCES || result == -EPERM;
    return false;
  }
  return std::any_of(fds.begin(), fds.end(), [&](const std::string& fd) {
    std::string target;
    if (kernel.read_link(folder + "/" + fd, target) < 0) return false;
    // A cdev that is being unbound has lost its node, but not those who have it open.
    constexpr std::string_view removed = " (deleted)";
    if (target.ends_with(removed)) target.resize(target.size() - removed.size());
    return std::find(paths.begin(), paths.end(), target) != paths.end();
  });
}

}  // namespace

Holders find_holders(Kernel& kernel, std::span<const std::string> paths) {
  Holders holders;
  std::vector<std::string> names;
  if (kernel.list_directory("/proc", names) < 0) return {.processes = {}, .complete = false};
  std::string self;
  if (kernel.read_link("/proc/self", self) < 0) self.clear();
  std::vector<unsigned long> pids;
  for (const std::string& name : names) {
    if (name != self && pid_of(name) != 0) pids.push_back(pid_of(name));
  }
  std::sort(pids.begin(), pids.end());
  bool hidden = false;
  for (const unsigned long pid : pids) {
    const std::string process = fmt::format("/proc/{}", pid);
    if (!holds_one_of(kernel, process, paths, hidden)) continue;
    std::string command;
    if (kernel.read_file(process + "/comm", command) < 0) command = "a process";
    command.erase(command.find_last_not_of('\n') + 1);
    holders.processes.push_back(fmt::format("{} (pid {})", command, pid));
  }
  holders.complete = !hidden;
  return holders;
}

Holders find_holders(Kernel& kernel, const HostDevice& device) {
  std::vector<std::string> paths;
  if (device.iommu_group) paths.push_back("/dev/vfio/" + group_text(device));
  if (device.cdev) paths.push_back(device.cdev->path);
  return find_holders(kernel, paths);
}

std::string holders_text(Kernel& kernel, const HostDevice& device) {
  const Holders holders = find_holders(kernel, device);
  const char* have = holders.processes.size() == 1 ? "has" : "have";
  return holders.processes.empty() ? "" : fmt::format("{} {} it, or its group, open", list_of(holders.processes), have);
}

std::string list_of(std::span<const std::string> words) {
  std::string text;
  for (std::size_t at = 0; at < words.size(); ++at) {
    if (at > 0) text += at + 1 == words.size() ? " and " : ", ";
    text += words[at];
  }
  return text;
}

}  // namespace postern::tool
