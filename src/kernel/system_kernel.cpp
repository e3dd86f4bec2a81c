// SPDX-License-Identifier: Apache-2.0
// SystemKernel: the kernel that this process runs on. Only this file makes system calls on VFIO and sysfs.
#include <dirent.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <new>
#include <postern/fd.hpp>
#include <postern/kernel.hpp>

namespace postern {
namespace {

template <typename T>
T result_of(T value) {
  return value < 0 ? static_cast<T>(-errno) : value;
}

class SystemKernel final : public Kernel {
 public:
  int open(const char* path, int flags) override { return result_of(::open(path, flags | O_CLOEXEC)); }
  int close(int fd) override { return result_of(::close(fd)); }
  int ioctl(int fd, unsigned long request, void* argument) override {
    return result_of(::ioctl(fd, request, argument));
  }

  ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override {
    return result_of(::pread(fd, buffer, length, static_cast<off_t>(offset)));
  }
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override {
    return result_of(::pwrite(fd, buffer, length, static_cast<off_t>(offset)));
  }

  ssize_t read(int fd, void* buffer, std::size_t length) override { return result_of(::read(fd, buffer, length)); }
  ssize_t write(int fd, const void* buffer, std::size_t length) override {
    return result_of(::write(fd, buffer, length));
  }

  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    void* mapped = ::mmap(address, length, protection, flags, fd, static_cast<off_t>(offset));
    return mapped == MAP_FAILED ? -errno : reinterpret_cast<std::intptr_t>(mapped);
  }
  int munmap(void* address, std::size_t length) override { return result_of(::munmap(address, length)); }
  int eventfd() override { return result_of(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)); }

  int read_file(const std::string& path, std::string& contents) override {
    contents.clear();
    const Fd file(*this, open(path.c_str(), O_RDONLY));
    if (!file) return -errno;
    std::array<char, 4096> piece{};
    for (;;) {
      const ssize_t got = ::read(file.get(), piece.data(), piece.size());
      if (got < 0) return -errno;
      if (got == 0) return 0;
      contents.append(piece.data(), static_cast<std::size_t>(got));
    }
  }

  int write_file(const std::string& path, const std::string& contents) override {
    const Fd file(*this, open(path.c_str(), O_WRONLY));
    if (!file) return -errno;
    // sysfs accepts a value in one write(2) only.
    const ssize_t put = ::write(file.get(), contents.data(), contents.size());
    if (put < 0) return -errno;
    return static_cast<std::size_t>(put) == contents.size() ? 0 : -EIO;
  }

  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    names.clear();
    const std::unique_ptr<DIR, int (*)(DIR*)> directory(::opendir(path.c_str()), ::closedir);
    if (directory == nullptr) return -errno;
    errno = 0;
    while (const dirent* entry = ::readdir(directory.get())) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") names.push_back(name);
    }
    const int failed = errno;
    std::sort(names.begin(), names.end());
    return -failed;
  }

  int read_link(const std::string& path, std::string& target) override {
    std::array<char, 4096> text{};
    const ssize_t got = ::readlink(path.c_str(), text.data(), text.size());
    if (got < 0) return -errno;
    target.assign(text.data(), static_cast<std::size_t>(got));
    return 0;
  }

  int status(const std::string& path, FileStatus& status) override {
    struct ::stat found {};
    if (::stat(path.c_str(), &found) < 0) return -errno;
    status = {.mode = found.st_mode, .owner = found.st_uid, .group = found.st_gid, .device = found.st_rdev};
    return 0;
  }

  int access(const std::string& path, int mode) override {
    return result_of(::faccessat(AT_FDCWD, path.c_str(), mode, AT_EACCESS));
  }
};

}  // namespace

int Kernel::memfd_create(const char* name, unsigned flags) {
  return result_of(::memfd_create(name, flags | MFD_CLOEXEC));
}
int Kernel::ftruncate(int fd, std::uint64_t length) { return result_of(::ftruncate(fd, static_cast<off_t>(length))); }
int Kernel::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  return result_of(::fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(length)));
}
int Kernel::fstat(int fd, FileStatus& status) {
  struct ::stat found {};
  if (::fstat(fd, &found) < 0) return -errno;
  status = {.mode = found.st_mode,
            .owner = found.st_uid,
            .group = found.st_gid,
            .device = found.st_rdev,
            .size = static_cast<std::uint64_t>(found.st_size),
            .blocks = static_cast<std::uint64_t>(found.st_blocks),
            .block_size = static_cast<std::uint64_t>(found.st_blksize)};
  return 0;
}
std::int64_t Kernel::lseek(int fd, std::uint64_t offset, int whence) {
  return result_of<std::int64_t>(::lseek(fd, static_cast<off_t>(offset), whence));
}
int Kernel::fcntl(int fd, int command) { return result_of(::fcntl(fd, command)); }
int Kernel::madvise(void* address, std::size_t length, int advice) {
  return result_of(::madvise(address, length, advice));
}

// Never destroyed: destructors of static objects may use it, in any order.
Kernel& system_kernel() noexcept {
  alignas(SystemKernel) static std::byte place[sizeof(SystemKernel)];
  static Kernel& kernel = *new (place) SystemKernel;
  return kernel;
}

}  // namespace postern
