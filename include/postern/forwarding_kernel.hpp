// SPDX-License-Identifier: Apache-2.0
// ForwardingKernel: a Kernel that passes every call on to another, for those that change a few.
#pragma once

#include <cstddef>
#include <cstdint>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <string>
#include <vector>

namespace postern {

/// Passes each call on to another Kernel and returns its result. Derive from it and override the calls to change,
/// record or refuse; a call that is added to Kernel later is passed on, too. Thread safety: as the other Kernel.
///
/// A ForwardingKernel may wrap another. One of the same class must be passed as a Kernel, because C++ takes an argument
/// of the class itself for a copy, which no Kernel allows:
///
///     Recorder inner(system_kernel());
///     Recorder outer(static_cast<Kernel&>(inner));  // Recorder outer(inner): use of a deleted function
class POSTERN_API ForwardingKernel : public Kernel {
 public:
  /// `kernel` must outlive this object.
  explicit ForwardingKernel(Kernel& kernel) noexcept : kernel_(kernel) {}

  int open(const char* path, int flags) override;
  int close(int fd) override;
  int ioctl(int fd, unsigned long request, void* argument) override;
  ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override;
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override;
  ssize_t read(int fd, void* buffer, std::size_t length) override;
  ssize_t write(int fd, const void* buffer, std::size_t length) override;
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override;
  int munmap(void* address, std::size_t length) override;
  int memfd_create(const char* name, unsigned flags) override;
  int ftruncate(int fd, std::uint64_t length) override;
  int fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) override;
  int fstat(int fd, FileStatus& status) override;
  std::int64_t lseek(int fd, std::uint64_t offset, int whence) override;
  int fcntl(int fd, int command) override;
  int madvise(void* address, std::size_t length, int advice) override;
  int eventfd() override;
  int read_file(const std::string& path, std::string& contents) override;
  int write_file(const std::string& path, const std::string& contents) override;
  int list_directory(const std::string& path, std::vector<std::string>& names) override;
  int read_link(const std::string& path, std::string& target) override;
  int status(const std::string& path, FileStatus& status) override;
  int access(const std::string& path, int mode) override;

 private:
  Kernel& kernel_;
};

}  // namespace postern
