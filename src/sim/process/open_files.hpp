// SPDX-License-Identifier: Apache-2.0
// OpenFiles: the fds of the process that stand for files of the simulated kernel.
#pragma once

#include <map>
#include <memory>

#include "sim/process/file.hpp"
#include "sim/process/lowest_free.hpp"

namespace postern::sim {

class OpenFiles {
 public:
  // Beyond what the process's own fds come to, so that these are never taken for each other.
  static constexpr int first_fd = 1 << 20;
  [[nodiscard]] static bool is_ours(int fd) { return fd >= first_fd; }

  // The fd that it gets.
  [[nodiscard]] int give(std::shared_ptr<File> file);
  // Null where nothing is open.
  [[nodiscard]] std::shared_ptr<File> find(int fd) const;
  // What an fd in an argument stands for. One of the process's own is a file all the same, of a kind that is unknown.
  [[nodiscard]] std::shared_ptr<File> find_any(int fd) const;
  // The fd is free again, and this was open there; null: nothing was.
  [[nodiscard]] std::shared_ptr<File> take_back(int fd);

  [[nodiscard]] bool hold(const File& file) const;
  [[nodiscard]] const std::map<int, std::shared_ptr<File>>& all() const noexcept { return files_; }
  void clear() { files_.clear(); }

 private:
  std::map<int, std::shared_ptr<File>> files_;
  LowestFree fds_{first_fd};
};

}  // namespace postern::sim
