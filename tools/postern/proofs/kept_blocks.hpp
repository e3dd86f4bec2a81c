// SPDX-License-Identifier: Apache-2.0
// KeptBlocks: what a disk held, in a file, while the disk holds something else.
#pragma once

#include <cstddef>
#include <postern/result.hpp>
#include <span>
#include <string>

namespace postern::tool {

// The file stays unless forget() is called, so that it outlives this process however that ends.
class KeptBlocks {
 public:
  // Makes the file, and its folder where that is missing, and returns once they are on stable storage (fsync(2)).
  // Errors: EEXIST (an earlier one is there, which nobody forgot), those of the system calls; then the file is not
  // there.
  [[nodiscard]] static Result<KeptBlocks> keep(const std::string& path, std::span<const std::byte> bytes);

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

  // The disk has them again: removes the file.
  [[nodiscard]] Result<void> forget() const;

 private:
  explicit KeptBlocks(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

}  // namespace postern::tool
