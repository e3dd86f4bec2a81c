// SPDX-License-Identifier: Apache-2.0
// KeptBlocks: a file on stable storage that holds the content of disk blocks.
#include "proofs/kept_blocks.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <postern/fd.hpp>
#include <postern/kernel.hpp>

namespace postern::tool {
namespace {

tl::unexpected<Error> kept_failure(const char* operation, const std::string& path, int code) {
  return failure({.code = code,
                  .operation = operation,
                  .object = path,
                  .reason = {},
                  .remedy = "choose a folder on another disk with --keep-in",
                  .causes = {}});
}

int write_whole(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno != EINTR) return errno;
    if (written > 0) bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

// Makes the entries of a folder durable.
Result<void> sync_folder(const std::string& folder) {
  const Fd fd(system_kernel(), ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) return kept_failure("open", folder, errno);
  if (::fsync(fd.get()) < 0) return kept_failure("fsync", folder, errno);
  return {};
}

Result<void> write_kept(const Fd& fd, const std::filesystem::path& path, std::span<const std::byte> bytes) {
  if (const int code = write_whole(fd.get(), bytes); code != 0) return kept_failure("write", path, code);
  if (::fsync(fd.get()) < 0) return kept_failure("fsync", path, errno);
  const auto folder = path.parent_path();
  POSTERN_TRY(sync_folder(folder));
  return sync_folder(folder.parent_path());
}

}  // namespace

Result<KeptBlocks> KeptBlocks::keep(const std::string& path, std::span<const std::byte> bytes) {
  const auto absolute = std::filesystem::absolute(path).lexically_normal();
  std::error_code error;
  std::filesystem::create_directories(absolute.parent_path(), error);
  if (error) return kept_failure("mkdir", absolute.parent_path(), error.value());
  Fd fd(system_kernel(), ::open(absolute.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (fd.get() < 0) return kept_failure("open", absolute, errno);
  if (auto done = write_kept(fd, absolute, bytes); !done) {
    (void)::unlink(absolute.c_str());
    return failure_of(done);
  }
  return KeptBlocks(absolute);
}

Result<void> KeptBlocks::remove() const {
  if (::unlink(path_.c_str()) < 0) return kept_failure("unlink", path_, errno);
  return sync_folder(std::filesystem::path(path_).parent_path());
}

}  // namespace postern::tool
