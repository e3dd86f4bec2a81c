// SPDX-License-Identifier: Apache-2.0
// OpenFiles: the fds of simulated files.
#pragma once

#include <map>
#include <memory>

#include "sim/process/file.hpp"
#include "sim/process/lowest_free.hpp"

namespace postern::sim {

class OpenFiles {
 public:
  // Above all real fds of the process, so that they are never confused.
  static constexpr int first_fd = 1 << 20;
  [[nodiscard]] static bool is_ours(int fd) { return fd >= first_fd; }

  // Returns the new fd.
  [[nodiscard]] int give(std::shared_ptr<File> file);
  // Null if the fd is not open.
  [[nodiscard]] std::shared_ptr<File> find(int fd) const;
  // Returns the file of an fd in an argument. A real fd of the process gives a file of unknown kind.
  [[nodiscard]] std::shared_ptr<File> find_any(int fd) const;
  // Frees the fd and returns its file; null if it was not open.
  [[nodiscard]] std::shared_ptr<File> take_back(int fd);

  [[nodiscard]] bool hold(const File& file) const;
  [[nodiscard]] const std::map<int, std::shared_ptr<File>>& all() const noexcept { return files_; }
  void clear() { files_.clear(); }

 private:
  std::map<int, std::shared_ptr<File>> files_;
  LowestFree fds_{first_fd};
};

}  // namespace postern::sim
