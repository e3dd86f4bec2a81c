// SPDX-License-Identifier: Apache-2.0
// ForwardingKernel: passes each call to another Kernel.
#include <postern/forwarding_kernel.hpp>

namespace postern {

int ForwardingKernel::open(const char* path, int flags) { return kernel_.open(path, flags); }
int ForwardingKernel::close(int fd) { return kernel_.close(fd); }
int ForwardingKernel::ioctl(int fd, unsigned long request, void* argument) {
  return kernel_.ioctl(fd, request, argument);
}

ssize_t ForwardingKernel::pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) {
  return kernel_.pread(fd, buffer, length, offset);
}
ssize_t ForwardingKernel::pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) {
  return kernel_.pwrite(fd, buffer, length, offset);
}
ssize_t ForwardingKernel::read(int fd, void* buffer, std::size_t length) { return kernel_.read(fd, buffer, length); }
ssize_t ForwardingKernel::write(int fd, const void* buffer, std::size_t length) {
  return kernel_.write(fd, buffer, length);
}

std::intptr_t ForwardingKernel::mmap(void* address, std::size_t length, int protection, int flags, int fd,
                                     std::uint64_t offset) {
  return kernel_.mmap(address, length, protection, flags, fd, offset);
}
int ForwardingKernel::munmap(void* address, std::size_t length) { return kernel_.munmap(address, length); }
int ForwardingKernel::memfd_create(const char* name, unsigned flags) { return kernel_.memfd_create(name, flags); }
int ForwardingKernel::ftruncate(int fd, std::uint64_t length) { return kernel_.ftruncate(fd, length); }
int ForwardingKernel::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  return kernel_.fallocate(fd, mode, offset, length);
}
int ForwardingKernel::fstat(int fd, FileStatus& status) { return kernel_.fstat(fd, status); }
std::int64_t ForwardingKernel::lseek(int fd, std::uint64_t offset, int whence) {
  return kernel_.lseek(fd, offset, whence);
}
int ForwardingKernel::fcntl(int fd, int command) { return kernel_.fcntl(fd, command); }
int ForwardingKernel::madvise(void* address, std::size_t length, int advice) {
  return kernel_.madvise(address, length, advice);
}
int ForwardingKernel::eventfd() { return kernel_.eventfd(); }

int ForwardingKernel::read_file(const std::string& path, std::string& contents) {
  return kernel_.read_file(path, contents);
}
int ForwardingKernel::write_file(const std::string& path, const std::string& contents) {
  return kernel_.write_file(path, contents);
}
int ForwardingKernel::list_directory(const std::string& path, std::vector<std::string>& names) {
  return kernel_.list_directory(path, names);
}
int ForwardingKernel::read_link(const std::string& path, std::string& target) {
  return kernel_.read_link(path, target);
}
int ForwardingKernel::status(const std::string& path, FileStatus& status) { return kernel_.status(path, status); }
int ForwardingKernel::access(const std::string& path, int mode) { return kernel_.access(path, mode); }

}  // namespace postern
