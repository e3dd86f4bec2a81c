// SPDX-License-Identifier: Apache-2.0
// FailingKernel: chooses the call that fails, and its errno.
#include <linux/vfio.h>

#include <postern-sim/faults.hpp>

namespace postern::sim {
namespace {

// Whether the result is a new fd.
bool returns_fd(unsigned long request, const void* argument) {
  if (request != VFIO_DEVICE_FEATURE) return request == VFIO_GROUP_GET_DEVICE_FD;
  constexpr std::uint32_t action = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_PROBE;
  const std::uint32_t flags = static_cast<const vfio_device_feature*>(argument)->flags;
  return (flags & (VFIO_DEVICE_FEATURE_MASK | action)) == (VFIO_DEVICE_FEATURE_DMA_BUF | VFIO_DEVICE_FEATURE_GET);
}

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
  const int fd = opened(ForwardingKernel::open(path, flags));
  if (fd >= 0) succeeded(call, fd);
  return fd;
}

int FailingKernel::close(int fd) {
  --open_;
  return ForwardingKernel::close(fd);
}

int FailingKernel::ioctl(int fd, unsigned long request, void* argument) {
  const KernelCall call{.function = "ioctl", .fd = fd, .request = request, .argument = argument};
  if (fails(call)) return -code_;
  if (request == failing_ioctl_) return -ioctl_code_;
  int result = refuse ? refuse(request, argument) : 0;
  if (result < 0) return result;
  result = ForwardingKernel::ioctl(fd, request, argument);
  if (answer) result = answer(request, argument, result);
  if (result >= 0) succeeded(call, result);
  return result >= 0 && returns_fd(request, argument) ? opened(result) : result;
}

ssize_t FailingKernel::pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) {
  if (fails({.function = "pread", .fd = fd})) return -code_;
  const ssize_t result = ForwardingKernel::pread(fd, buffer, length, offset);
  return answer_read ? answer_read(buffer, length, offset, result) : result;
}

ssize_t FailingKernel::pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) {
  return fails({.function = "pwrite", .fd = fd}) ? -code_ : ForwardingKernel::pwrite(fd, buffer, length, offset);
}

ssize_t FailingKernel::read(int fd, void* buffer, std::size_t length) {
  return fails({.function = "read", .fd = fd}) ? -code_ : ForwardingKernel::read(fd, buffer, length);
}

ssize_t FailingKernel::write(int fd, const void* buffer, std::size_t length) {
  return fails({.function = "write", .fd = fd}) ? -code_ : ForwardingKernel::write(fd, buffer, length);
}

std::intptr_t FailingKernel::mmap(void* address, std::size_t length, int protection, int flags, int fd,
                                  std::uint64_t offset) {
  if (fails({.function = "mmap", .fd = fd})) return -code_;
  return ForwardingKernel::mmap(address, length, protection, flags, fd, offset);
}

int FailingKernel::memfd_create(const char* name, unsigned flags) {
  return fails({.function = "memfd_create"}) ? -code_ : opened(ForwardingKernel::memfd_create(name, flags));
}

int FailingKernel::ftruncate(int fd, std::uint64_t length) {
  return fails({.function = "ftruncate", .fd = fd}) ? -code_ : ForwardingKernel::ftruncate(fd, length);
}

int FailingKernel::fallocate(int fd, int mode, std::uint64_t offset, std::uint64_t length) {
  return fails({.function = "fallocate", .fd = fd}) ? -code_ : ForwardingKernel::fallocate(fd, mode, offset, length);
}

int FailingKernel::fstat(int fd, FileStatus& status) {
  return fails({.function = "fstat", .fd = fd}) ? -code_ : ForwardingKernel::fstat(fd, status);
}

std::int64_t FailingKernel::lseek(int fd, std::uint64_t offset, int whence) {
  return fails({.function = "lseek", .fd = fd}) ? -code_ : ForwardingKernel::lseek(fd, offset, whence);
}

int FailingKernel::fcntl(int fd, int command) {
  return fails({.function = "fcntl", .fd = fd}) ? -code_ : ForwardingKernel::fcntl(fd, command);
}

int FailingKernel::madvise(void* address, std::size_t length, int advice) {
  return fails({.function = "madvise"}) ? -code_ : ForwardingKernel::madvise(address, length, advice);
}

int FailingKernel::eventfd() { return fails({.function = "eventfd"}) ? -code_ : opened(ForwardingKernel::eventfd()); }

int FailingKernel::read_file(const std::string& path, std::string& contents) {
  if (fails({.function = "read_file", .path = path})) return -code_;
  const int result = ForwardingKernel::read_file(path, contents);
  return answer_file ? answer_file(path, contents, result) : result;
}

int FailingKernel::write_file(const std::string& path, const std::string& contents) {
  return fails({.function = "write_file", .path = path}) ? -code_ : ForwardingKernel::write_file(path, contents);
}

int FailingKernel::list_directory(const std::string& path, std::vector<std::string>& names) {
  return fails({.function = "list_directory", .path = path}) ? -code_ : ForwardingKernel::list_directory(path, names);
}

int FailingKernel::read_link(const std::string& path, std::string& target) {
  return fails({.function = "read_link", .path = path}) ? -code_ : ForwardingKernel::read_link(path, target);
}

int FailingKernel::status(const std::string& path, FileStatus& status) {
  return fails({.function = "status", .path = path}) ? -code_ : ForwardingKernel::status(path, status);
}

int FailingKernel::access(const std::string& path, int mode) {
  return fails({.function = "access", .path = path}) ? -code_ : ForwardingKernel::access(path, mode);
}

bool FailingKernel::fails(const KernelCall& call) {
  begun(call);
  if (count_++ != failing_) return false;
  failed_path_ = call.path;
  failed_call_ = call;
  return true;
}

KernelCall FailingKernel::failed_call() const {
  KernelCall call = failed_call_;
  call.path = failed_path_;
  call.argument = nullptr;  // which may be gone
  return call;
}

int FailingKernel::opened(int fd) {
  if (fd >= 0) ++open_;
  return fd;
}

}  // namespace postern::sim
