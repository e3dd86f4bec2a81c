// SPDX-License-Identifier: Apache-2.0
// Folder: an empty folder for sockets, removed with what is in it.
#pragma once

#include <stdlib.h>  // NOLINT(modernize-deprecated-headers): mkdtemp(3) is POSIX

#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace postern::vfio_user::rig {

class Folder {
 public:
  Folder() {
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("no folder can be made in /tmp");
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  // Short: the path of a socket has at most 107 bytes.
  std::string path_ = "/tmp/postern-XXXXXX";
};

}  // namespace postern::vfio_user::rig
