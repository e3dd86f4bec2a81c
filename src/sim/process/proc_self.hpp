// SPDX-License-Identifier: Apache-2.0
// ProcSelf: changes the process's own folder in /proc to show the state of the simulated kernel.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/process/process.hpp"

namespace postern::sim {

class ProcSelf {
 public:
  explicit ProcSelf(const Process& process) : process_(process) {}

  // Whether a path is that of an fd, which may be a simulated one.
  [[nodiscard]] static bool is_fd(std::string_view path) { return path.starts_with(fds); }

  // These change the real kernel's data to that of the simulated one.
  void read_file(const std::string& path, std::string& contents) const;
  void list_directory(const std::string& path, std::vector<std::string>& names) const;
  // For the link of an fd; false if it is not a simulated one.
  [[nodiscard]] bool read_link(const std::string& path, std::string& target) const;

 private:
  static constexpr std::string_view fds = "/proc/self/fd/";

  const Process& process_;
};

}  // namespace postern::sim
