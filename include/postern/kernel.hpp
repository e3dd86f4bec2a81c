// SPDX-License-Identifier: Apache-2.0
// Kernel: the system calls that passthrough needs, as an interface that tests and simulations can implement.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <postern/export.hpp>
#include <string>
#include <vector>

namespace postern {

/// The fields of stat(2) that passthrough needs.
struct FileStatus {
  mode_t mode = 0;   ///< st_mode
  uid_t owner = 0;   ///< st_uid
  gid_t group = 0;   ///< st_gid
  dev_t device = 0;  ///< st_rdev: the device number of a node
  // Of files of memory, by Kernel::fstat() only:
  std::uint64_t size = 0;        ///< st_size, bytes
  std::uint64_t blocks = 0;      ///< st_blocks: allocated units of 512 bytes
  std::uint64_t block_size = 0;  ///< st_blksize: of hugetlbfs, the huge page
};

/// Whether a result of Kernel::mmap() is a negated errno, -4095 to -1, and not an address.
[[nodiscard]] constexpr bool is_errno(std::intptr_t mapped) noexcept { return mapped < 0 && mapped >= -4095; }

/// Each function is the system call of its name and returns the raw result: 0 or more, or a negated errno. None logs,
/// retries or explains errors; callers do. Paths are absolute. Thread safety: implementations must accept concurrent
/// calls, as a kernel does.
class POSTERN_API Kernel {
 public:
  Kernel() = default;
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;
  virtual ~Kernel() = default;

  /// Opens a file, with O_CLOEXEC added to `flags`.
  [[nodiscard]] virtual int open(const char* path, int flags) = 0;
  virtual int close(int fd) = 0;  ///< closes a descriptor
  [[nodiscard]] virtual int ioctl(int fd, unsigned long request,
                                  void* argument) = 0;  ///< `argument` is a pointer or a number, as the request has it
  [[nodiscard]] virtual ssize_t pread(int fd, void* buffer, std::size_t length,
                                      std::uint64_t offset) = 0;  ///< returns the number of bytes read
  [[nodiscard]] virtual ssize_t pwrite(int fd, const void* buffer, std::size_t length,
                                       std::uint64_t offset) = 0;  ///< returns the number of bytes written

  // Streams, which have no offsets: the state of a migrating device.
  [[nodiscard]] virtual ssize_t read(int fd, void* buffer,
                                     std::size_t length) = 0;  ///< returns the number of bytes read
  [[nodiscard]] virtual ssize_t write(int fd, const void* buffer,
                                      std::size_t length) = 0;  ///< returns the number of bytes written

  /// Returns the address or a negated errno; is_errno() distinguishes them. `address` is a hint unless `flags` contains
  /// MAP_FIXED or MAP_FIXED_NOREPLACE. `fd` is -1 with MAP_ANONYMOUS.
  [[nodiscard]] virtual std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                                           std::uint64_t offset) = 0;
  virtual int munmap(void* address, std::size_t length) = 0;  ///< unmaps memory

  // Files of memory. Every Kernel has real ones, so these make the system call unless they are overridden.
  [[nodiscard]] virtual int memfd_create(const char* name, unsigned flags);  ///< adds MFD_CLOEXEC
  [[nodiscard]] virtual int ftruncate(int fd, std::uint64_t length);         ///< sets a file's length, bytes
  [[nodiscard]] virtual int fallocate(int fd, int mode, std::uint64_t offset,
                                      std::uint64_t length);    ///< 0, FALLOC_FL_PUNCH_HOLE
  [[nodiscard]] virtual int fstat(int fd, FileStatus& status);  ///< reads the status of an open file
  [[nodiscard]] virtual std::int64_t lseek(int fd, std::uint64_t offset,
                                           int whence);  ///< SEEK_CUR, SEEK_SET, SEEK_DATA, SEEK_HOLE
  [[nodiscard]] virtual int fcntl(int fd, int command);  ///< F_GETFL, F_GET_SEALS
  [[nodiscard]] virtual int madvise(void* address, std::size_t length, int advice);  ///< MADV_POPULATE_READ

  /// Creates an eventfd(2) with EFD_CLOEXEC and EFD_NONBLOCK. Every Kernel returns a real one, so that poll(2) works.
  [[nodiscard]] virtual int eventfd() = 0;

  // Files, links and directories of sysfs and /proc/self, as a whole.
  /// Reads a whole file.
  [[nodiscard]] virtual int read_file(const std::string& path, std::string& contents) = 0;
  /// Writes a whole file.
  [[nodiscard]] virtual int write_file(const std::string& path, const std::string& contents) = 0;
  /// Lists the entries of a directory.
  [[nodiscard]] virtual int list_directory(const std::string& path, std::vector<std::string>& names) = 0;
  /// Reads the target of a symbolic link.
  [[nodiscard]] virtual int read_link(const std::string& path, std::string& target) = 0;
  /// stat(2), which follows symbolic links.
  [[nodiscard]] virtual int status(const std::string& path, FileStatus& status) = 0;
  /// Checks access for the effective user, as faccessat(2) with AT_EACCESS; `mode` is R_OK, W_OK or both.
  [[nodiscard]] virtual int access(const std::string& path, int mode) = 0;
};

/// Returns the kernel this process runs on. It is never destroyed, so destructors of static objects may use it.
/// Thread-safe.
[[nodiscard]] POSTERN_API Kernel& system_kernel() noexcept;

}  // namespace postern
