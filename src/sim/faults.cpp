// SPDX-License-Identifier: Apache-2.0
// FailingKernel: which call fails, and by what.
#include <linux/vfio.h>

#include <postern-sim/faults.hpp>

namespace postern::sim {
namespace {

constexpr unsigned long device_fd_request = VFIO_GROUP_GET_DEVICE_FD;  // gives a new fd

}  // namespace

void FailingKernel::fail_call(int number, int code) {
  count_ = 0;
  failing_ = number;
  code_ = code;
}

void FailingKernel::fail_ioctl(unsigned long request, int code) {
  failing_ioctl_ = request;
  ioctl_code_ = code;
}

int FailingKernel::open(const char* path, int flags) {
  const KernelCall call{.function = "open", .path = path};
  if (fails(call)) return -code_;
  const int fd = opened(real_.open(path, flags));
  if (fd >= 0) succeeded(call, fd);
  return fd;
}

int FailingKernel::close(int fd) {
  --open_;
  return real_.close(fd);
}

int FailingKernel::ioctl(int fd, unsigned long request, void* argument) {
  const KernelCall call{.function = "ioctl", .fd = fd, .request = request, .argument = argument};
  if (fails(call)) return -code_;
  if (request == failing_ioctl_) return -ioctl_code_;
  int result = refuse ? refuse(request, argument) : 0;
  if (result < 0) return result;
  result = real_.ioctl(fd, request, argument);
  if (answer) result = answer(request, argument, result);
  if (result >= 0) succeeded(call, result);
  return request == device_fd_request ? opened(result) : result;
}

ssize_t FailingKernel::pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) {
  if (fails({.function = "pread", .fd = fd})) return -code_;
  const ssize_t result = real_.pread(fd, buffer, length, offset);
  return answer_read ? answer_read(buffer, length, offset, result) : result;
}

ssize_t FailingKernel::pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) {
  return fails({.function = "pwrite", .fd = fd}) ? -code_ : real_.pwrite(fd, buffer, length, offset);
}

ssize_t FailingKernel::read(int fd, void* buffer, std::size_t length) {
  return fails({.function = "read", .fd = fd}) ? -code_ : real_.read(fd, buffer, length);
}

ssize_t FailingKernel::write(int fd, const void* buffer, std::size_t length) {
  return fails({.function = "write", .fd = fd}) ? -code_ : real_.write(fd, buffer, length);
}

std::intptr_t FailingKernel::mmap(void* address, std::size_t length, int protection, int flags, int fd,
                                  std::uint64_t offset) {
  if (fails({.function = "mmap", .fd = fd})) return -code_;
  return real_.mmap(address, length, protection, flags, fd, offset);
}

int FailingKernel::munmap(void* address, std::size_t length) { return real_.munmap(address, length); }

int FailingKernel::eventfd() { return fails({.function = "eventfd"}) ? -code_ : opened(real_.eventfd()); }

int FailingKernel::read_file(const std::string& path, std::string& contents) {
  if (fails({.function = "read_file", .path = path})) return -code_;
  const int result = real_.read_file(path, contents);
  return answer_file ? answer_file(path, contents, result) : result;
}

int FailingKernel::write_file(const std::string& path, const std::string& contents) {
  return fails({.function = "write_file", .path = path}) ? -code_ : real_.write_file(path, contents);
}

int FailingKernel::list_directory(const std::string& path, std::vector<std::string>& names) {
  return fails({.function = "list_directory", .path = path}) ? -code_ : real_.list_directory(path, names);
}

int FailingKernel::read_link(const std::string& path, std::string& target) {
  return fails({.function = "read_link", .path = path}) ? -code_ : real_.read_link(path, target);
}

int FailingKernel::status(const std::string& path, FileStatus& status) {
  return fails({.function = "status", .path = path}) ? -code_ : real_.status(path, status);
}

int FailingKernel::access(const std::string& path, int mode) {
  return fails({.function = "access", .path = path}) ? -code_ : real_.access(path, mode);
}

bool FailingKernel::fails(const KernelCall& call) {
  begun(call);
  return count_++ == failing_;
}

int FailingKernel::opened(int fd) {
  if (fd >= 0) ++open_;
  return fd;
}

}  // namespace postern::sim
