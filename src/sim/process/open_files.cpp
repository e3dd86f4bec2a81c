// SPDX-License-Identifier: Apache-2.0
// OpenFiles: allocates and frees fds.
#include "sim/process/open_files.hpp"

#include <fcntl.h>

#include <algorithm>
#include <utility>

namespace postern::sim {

int OpenFiles::give(std::shared_ptr<File> file) {
  const int fd = fds_.take();
  files_[fd] = std::move(file);
  return fd;
}

std::shared_ptr<File> OpenFiles::find(int fd) const {
  const auto found = files_.find(fd);
  return found != files_.end() ? found->second : nullptr;
}

std::shared_ptr<File> OpenFiles::find_any(int fd) const {
  return is_ours(fd) || ::fcntl(fd, F_GETFD) < 0 ? find(fd) : std::make_shared<File>();
}

std::shared_ptr<File> OpenFiles::take_back(int fd) {
  auto file = find(fd);
  if (file) {
    files_.erase(fd);
    fds_.give_back(fd);
  }
  return file;
}

bool OpenFiles::hold(const File& file) const {
  return std::any_of(files_.begin(), files_.end(), [&file](const auto& each) { return each.second.get() == &file; });
}

}  // namespace postern::sim
