// SPDX-License-Identifier: Apache-2.0
// Kernel: the system calls a passthrough makes, as one narrow interface that a test or a simulation can take the place
// of.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <postern/export.hpp>
#include <string>
#include <vector>

namespace postern {

// What stat(2) says of a path, as far as passthrough asks.
struct FileStatus {
  mode_t mode = 0;
  uid_t owner = 0;
  gid_t group = 0;
  dev_t device = 0;  // st_rdev: which device a node stands for
};

// Whether what Kernel::mmap() gave is a negated errno: those are -4095 to -1, and no address.
[[nodiscard]] constexpr bool is_errno(std::intptr_t mapped) noexcept { return mapped < 0 && mapped >= -4095; }

// Each function is the system call it is named after, and gives what the raw call gives: a value of 0 or more, or a
// negated errno. None of them logs, retries or explains; that is done above. Paths are absolute. Thread rules: an
// implementation must allow calls from several threads at once, as a kernel does.
class POSTERN_API Kernel {
 public:
  Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  virtual ~Kernel() = default;

  // Adds O_CLOEXEC to `flags`.
  [[nodiscard]] virtual int open(const char* path, int flags) = 0;
  virtual int close(int fd) = 0;
  [[nodiscard]] virtual int ioctl(int fd, unsigned long request, void* argument) = 0;
  [[nodiscard]] virtual ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) = 0;

  // Of streams, which have no offsets: the state of a device that migrates.
  [[nodiscard]] virtual ssize_t read(int fd, void* buffer, std::size_t length) = 0;
  [[nodiscard]] virtual ssize_t write(int fd, const void* buffer, std::size_t length) = 0;

  // The address, or a negated errno: is_errno() tells. `address` is a hint unless `flags` has
  // MAP_FIXED. fd -1 goes with MAP_ANONYMOUS.
  [[nodiscard]] virtual std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                                           std::uint64_t offset) = 0;
  virtual int munmap(void* address, std::size_t length) = 0;

  // An eventfd(2) with EFD_CLOEXEC and EFD_NONBLOCK. It is a real one under every Kernel, so that poll(2) works on it.
  [[nodiscard]] virtual int eventfd() = 0;

  // Files that are read, written or listed whole: sysfs, and /proc/self.
  [[nodiscard]] virtual int read_file(const std::string& path, std::string& contents) = 0;
  [[nodiscard]] virtual int write_file(const std::string& path, const std::string& contents) = 0;
  [[nodiscard]] virtual int list_directory(const std::string& path, std::vector<std::string>& names) = 0;
  [[nodiscard]] virtual int read_link(const std::string& path, std::string& target) = 0;
  [[nodiscard]] virtual int status(const std::string& path, FileStatus& status) = 0;
  // access(2) for the effective user: `mode` is R_OK, W_OK or both.
  [[nodiscard]] virtual int access(const std::string& path, int mode) = 0;
};

// The kernel this process runs on. It is never destroyed: the destructors of objects with static storage may use it.
[[nodiscard]] POSTERN_API Kernel& system_kernel() noexcept;

}  // namespace postern
