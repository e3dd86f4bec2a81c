// SPDX-License-Identifier: Apache-2.0
// KeptBlocks: a file that holds the content of disk blocks while these are overwritten.
#pragma once

#include <cstddef>
#include <postern/result.hpp>
#include <span>
#include <string>

namespace postern::tool {

// The file stays until remove() is called, so that it survives any end of this process.
class KeptBlocks {
 public:
  // Creates the file, and its folder if that is missing, and returns once both are on stable storage (fsync(2)).
  // Errors: EEXIST (the file of an earlier run was not removed), those of the system calls. After an error there is no
  // new file.
  [[nodiscard]] static Result<KeptBlocks> keep(const std::string& path, std::span<const std::byte> bytes);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // Removes the file, once the disk has its content again.
  [[nodiscard]] Result<void> remove() const;

 private:
  explicit KeptBlocks(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace postern::tool
