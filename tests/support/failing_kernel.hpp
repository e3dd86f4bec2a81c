// SPDX-License-Identifier: Apache-2.0
// FailingKernel: another Kernel, one call of which fails with an errno of the test's choice.
#pragma once

#include <linux/vfio.h>

#include <atomic>
#include <functional>
#include <postern/kernel.hpp>

namespace postern::test {

// Passes every call on, counts those that can fail, and fails the one that `fail_call` names. Calls that give things
// back (close, munmap) are never failed: the kernel does not fail them for a valid argument.
class FailingKernel : public Kernel {
 public:
  explicit FailingKernel(Kernel& real) : real_(real) {}

  // Fails the call that comes after `number` others; a negative number fails none. Resets the count.
  void fail_call(int number, int code) {
    count_ = 0;
    failing_ = number;
    code_ = code;
  }
  // Fails every ioctl of this number, from now on; 0 fails none.
  void fail_ioctl(unsigned long request, int code) {
    failing_ioctl_ = request;
    ioctl_code_ = code;
  }
  // Replaces what an ioctl answers, after the real one has run: an errno, or changed contents.
  std::function<int(unsigned long request, void* argument, int result)> answer;

  [[nodiscard]] int calls() const { return count_; }
  [[nodiscard]] int open_files() const { return open_; }  // opened and given by ioctls, less closed
  [[nodiscard]] bool failed() const { return failing_ >= 0 && count_ > failing_; }

  int open(const char* path, int flags) override { return fails() ? -code_ : opened(real_.open(path, flags)); }
  int close(int fd) override {
    --open_;
    return real_.close(fd);
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (fails()) return -code_;
    if (request == failing_ioctl_) return -ioctl_code_;
    int result = real_.ioctl(fd, request, argument);
    if (answer) result = answer(request, argument, result);
    return request == device_fd_request ? opened(result) : result;
  }
  ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override {
    return fails() ? -code_ : real_.pread(fd, buffer, length, offset);
  }
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override {
    return fails() ? -code_ : real_.pwrite(fd, buffer, length, offset);
  }
  ssize_t read(int fd, void* buffer, std::size_t length) override {
    return fails() ? -code_ : real_.read(fd, buffer, length);
  }
  ssize_t write(int fd, const void* buffer, std::size_t length) override {
    return fails() ? -code_ : real_.write(fd, buffer, length);
  }
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    return fails() ? -code_ : real_.mmap(address, length, protection, flags, fd, offset);
  }
  int munmap(void* address, std::size_t length) override { return real_.munmap(address, length); }
  int eventfd() override { return fails() ? -code_ : opened(real_.eventfd()); }
  int read_file(const std::string& path, std::string& contents) override {
    return fails() ? -code_ : real_.read_file(path, contents);
  }
  int write_file(const std::string& path, const std::string& contents) override {
    return fails() ? -code_ : real_.write_file(path, contents);
  }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return fails() ? -code_ : real_.list_directory(path, names);
  }
  int read_link(const std::string& path, std::string& target) override {
    return fails() ? -code_ : real_.read_link(path, target);
  }
  int status(const std::string& path, FileStatus& status) override {
    return fails() ? -code_ : real_.status(path, status);
  }
  int access(const std::string& path, int mode) override { return fails() ? -code_ : real_.access(path, mode); }

 private:
  static constexpr unsigned long device_fd_request = VFIO_GROUP_GET_DEVICE_FD;  // gives a new fd

  bool fails() { return count_++ == failing_; }
  int opened(int fd) {
    if (fd >= 0) ++open_;
    return fd;
  }

  Kernel& real_;
  std::atomic<int> count_ = 0;
  std::atomic<int> open_ = 0;
  int failing_ = -1;
  int code_ = 0;
  unsigned long failing_ioctl_ = 0;
  int ioctl_code_ = 0;
};

}  // namespace postern::test
