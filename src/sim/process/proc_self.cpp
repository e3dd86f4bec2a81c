// SPDX-License-Identifier: Apache-2.0
// ProcSelf: locked memory and its limit, and the open files.
#include "sim/process/proc_self.hpp"

#include <fmt/format.h>

namespace postern::sim {
namespace {

// Replaces the value of a line "Name: 123 kB". Only matches the label at the start of a line, since a process may have
// such a name.
void set_line(std::string& text, std::string_view name, const std::string& value) {
  const auto before = text.find(fmt::format("\n{}", name));
  if (before == std::string::npos) return;
  const auto at = before + 1 + name.size();
  text.replace(at, text.find('\n', at) - at, "\t" + value);
}

}  // namespace

void ProcSelf::read_file(const std::string& path, std::string& contents) const {
  const auto limit = process_.memory_limit;
  if (path == "/proc/self/status") {
    set_line(contents, "VmLck:", fmt::format("{:8} kB", process_.locked() / 1024));
    set_line(contents, "VmPin:", fmt::format("{:8} kB", process_.pinned() / 1024));
    // With a limit, the process has no CAP_IPC_LOCK, so that the limit applies.
    if (limit) set_line(contents, "CapEff:", std::string(16, '0'));
  } else if (path == "/proc/self/limits" && limit) {
    contents = fmt::format("Max locked memory         {0}                {0}                bytes\n", *limit);
  }
}

void ProcSelf::list_directory(const std::string& path, std::vector<std::string>& names) const {
  if (path != "/proc/self/fd") return;
  for (const auto& [fd, file] : process_.files.all()) names.push_back(std::to_string(fd));
}

bool ProcSelf::read_link(const std::string& path, std::string& target) const {
  for (const auto& [fd, file] : process_.files.all()) {
    if (path.substr(fds.size()) != std::to_string(fd)) continue;
    target = file->path;
    return true;
  }
  return false;
}

}  // namespace postern::sim
