// SPDX-License-Identifier: Apache-2.0
// Holders: finds the processes that have a device node open.
#include "host/holders.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <set>
#include <string_view>

#include "host/reading.hpp"
#include "text/names.hpp"

namespace postern::tool {
namespace {

// Returns the pid that an entry of /proc names; 0 if the entry is not a process.
unsigned long pid_of(const std::string& name) {
  unsigned long pid = 0;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data(), end, pid);
  return error == std::errc() && rest == end ? pid : 0;
}

// Collects which of `paths` the process has open. Returns 0, or a negated errno if its open files cannot be read.
int list_open(Kernel& kernel, const std::string& process, std::span<const std::string> paths,
              std::set<std::string>& open) {
  const std::string folder = process + "/fd";
  std::vector<std::string> fds;
  if (const int result = kernel.list_directory(folder, fds); result < 0) return result;
  for (const std::string& fd : fds) {
    std::string target;
    const int result = kernel.read_link(fmt::format("{}/{}", folder, fd), target);
    if (result == -ENOENT) continue;  // closed meanwhile
    if (result < 0) return result;
    // The node of a cdev that is being unbound is gone, but processes may still have it open.
    constexpr std::string_view removed = " (deleted)";
    if (target.ends_with(removed)) target.resize(target.size() - removed.size());
    if (std::find(paths.begin(), paths.end(), target) != paths.end()) open.insert(target);
  }
  return 0;
}

// Returns why /proc may not show all processes of this host; empty if it does.
std::string hidden_processes(Kernel& kernel) {
  constexpr std::string_view initial = "pid:[4026531836]";  // PROC_PID_INIT_INO of linux/proc_ns.h
  std::string space;
  const int result = kernel.read_link("/proc/self/ns/pid", space);
  // A kernel without PID namespaces has no such link.
  if (result == -ENOENT) return {};
  if (result < 0) return fmt::format("/proc/self/ns/pid: {}", std::strerror(-result));
  if (space != initial) return "this is a PID namespace, and processes outside of it are not visible";
  const auto shows_first = is_there(kernel, "/proc/1");
  if (!shows_first) return fmt::format("/proc/1: {}", std::strerror(shows_first.error().code()));
  return *shows_first ? "" : "/proc hides the processes of other users (hidepid)";
}

}  // namespace

Holders find_holders(Kernel& kernel, std::span<const std::string> paths) {
  Holders holders;
  std::vector<std::string> names;
  if (const int result = kernel.list_directory("/proc", names); result < 0) {
    holders.hidden = fmt::format("/proc cannot be listed: {}", std::strerror(-result));
    return holders;
  }
  holders.hidden = hidden_processes(kernel);
  std::string self;
  if (kernel.read_link("/proc/self", self) < 0) self.clear();
  std::vector<unsigned long> pids;
  for (const std::string& name : names) {
    if (name != self && pid_of(name) != 0) pids.push_back(pid_of(name));
  }
  std::sort(pids.begin(), pids.end());
  std::set<std::string> all;
  for (const unsigned long pid : pids) {
    const std::string process = fmt::format("/proc/{}", pid);
    std::set<std::string> open;
    const int result = list_open(kernel, process, paths, open);
    if (result == -EACCES || result == -EPERM) {
      holders.hidden = "only root can see which files other users have open";
    } else if (result < 0 && result != -ENOENT && result != -ESRCH) {  // a process that has ended hides nothing
      holders.hidden = fmt::format("{}/fd: {}", process, std::strerror(-result));
    }
    if (open.empty()) continue;
    std::string command;
    if (kernel.read_file(process + "/comm", command) < 0) command = "a process";
    command.erase(command.find_last_not_of('\n') + 1);
    holders.processes.push_back(fmt::format("{} (pid {})", command, pid));
    all.merge(open);
  }
  holders.paths.assign(all.begin(), all.end());
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
  if (!holders.processes.empty()) return fmt::format("{} {} it, or its group, open", list_of(holders.processes), have);
  return holders.hidden.empty() ? "" : fmt::format("it is unknown who has it open: {}", holders.hidden);
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
