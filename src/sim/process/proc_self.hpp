// SPDX-License-Identifier: Apache-2.0
// ProcSelf: what the process's own folder of /proc shows otherwise on the simulated kernel than on the real one.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sim/process/process.hpp"

namespace postern::sim {

class ProcSelf {
 public:
  explicit ProcSelf(const Process& process) : process_(process) {}

  // Whether a path is that of an fd, which may be the simulated kernel's.
  [[nodiscard]] static bool is_fd(std::string_view path) { return path.starts_with(fds); }

  // These put into what the real kernel says what the simulated one does.
  void read_file(const std::string& path, std::string& contents) const;
  void list_directory(const std::string& path, std::vector<std::string>& names) const;
  // Of an fd; false where it is none of the simulated kernel's.
  [[nodiscard]] bool read_link(const std::string& path, std::string& target) const;

 private:
  static constexpr std::string_view fds = "/proc/self/fd/";

  const Process& process_;
};

}  // namespace postern::sim
