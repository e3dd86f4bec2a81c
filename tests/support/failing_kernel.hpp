// SPDX-License-Identifier: Apache-2.0
// FailingKernel: another Kernel, one call of which fails with an errno of the test's choice.
#pragma once

#include <linux/vfio.h>

#include <atomic>
#include <functional>
#include <postern/kernel.hpp>
#include <string_view>

namespace postern::test {

// One call that can fail, as it is made.
struct KernelCall {
  std::string_view function;  // of Kernel: "ioctl", "read_file"
  int fd = -1;
  unsigned long request = 0;  // of an ioctl
  void* argument = nullptr;   // of an ioctl
  std::string_view path = {};
};

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
  // Refuses an ioctl before the real one runs, by a negated errno; 0 lets it run.
  std::function<int(unsigned long request, void* argument)> refuse;
  // Replaces what an ioctl answers, after the real one has run: an errno, or changed contents.
  std::function<int(unsigned long request, void* argument, int result)> answer;
  // The same for pread(), whose buffer holds what was read, and for read_file().
  std::function<ssize_t(void* buffer, std::size_t length, std::uint64_t offset, ssize_t result)> answer_read;
  std::function<int(const std::string& path, std::string& contents, int result)> answer_file;

  [[nodiscard]] int calls() const { return count_; }
  [[nodiscard]] int open_files() const { return open_; }  // opened and given by ioctls, less closed
  [[nodiscard]] bool failed() const { return failing_ >= 0 && count_ > failing_; }

  int open(const char* path, int flags) override {
    const KernelCall call{.function = "open", .path = path};
    if (fails(call)) return -code_;
    const int fd = opened(real_.open(path, flags));
    succeeded(call, fd);
    return fd;
  }
  int close(int fd) override {
    --open_;
    return real_.close(fd);
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
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
  ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override {
    if (fails({.function = "pread", .fd = fd})) return -code_;
    const ssize_t result = real_.pread(fd, buffer, length, offset);
    return answer_read ? answer_read(buffer, length, offset, result) : result;
  }
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override {
    return fails({.function = "pwrite", .fd = fd}) ? -code_ : real_.pwrite(fd, buffer, length, offset);
  }
  ssize_t read(int fd, void* buffer, std::size_t length) override {
    return fails({.function = "read", .fd = fd}) ? -code_ : real_.read(fd, buffer, length);
  }
  ssize_t write(int fd, const void* buffer, std::size_t length) override {
    return fails({.function = "write", .fd = fd}) ? -code_ : real_.write(fd, buffer, length);
  }
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    if (fails({.function = "mmap", .fd = fd})) return -code_;
    return real_.mmap(address, length, protection, flags, fd, offset);
  }
  int munmap(void* address, std::size_t length) override { return real_.munmap(address, length); }
  int eventfd() override { return fails({.function = "eventfd"}) ? -code_ : opened(real_.eventfd()); }
  int read_file(const std::string& path, std::string& contents) override {
    if (fails({.function = "read_file", .path = path})) return -code_;
    const int result = real_.read_file(path, contents);
    return answer_file ? answer_file(path, contents, result) : result;
  }
  int write_file(const std::string& path, const std::string& contents) override {
    return fails({.function = "write_file", .path = path}) ? -code_ : real_.write_file(path, contents);
  }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return fails({.function = "list_directory", .path = path}) ? -code_ : real_.list_directory(path, names);
  }
  int read_link(const std::string& path, std::string& target) override {
    return fails({.function = "read_link", .path = path}) ? -code_ : real_.read_link(path, target);
  }
  int status(const std::string& path, FileStatus& status) override {
    return fails({.function = "status", .path = path}) ? -code_ : real_.status(path, status);
  }
  int access(const std::string& path, int mode) override {
    return fails({.function = "access", .path = path}) ? -code_ : real_.access(path, mode);
  }

 protected:
  // For who keeps a record: before each call that can fail, and after an open or ioctl that did not.
  virtual void begun(const KernelCall& /*call*/) {}
  virtual void succeeded(const KernelCall& /*call*/, int /*result*/) {}

 private:
  static constexpr unsigned long device_fd_request = VFIO_GROUP_GET_DEVICE_FD;  // gives a new fd

  bool fails(const KernelCall& call) {
    begun(call);
    return count_++ == failing_;
  }
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
