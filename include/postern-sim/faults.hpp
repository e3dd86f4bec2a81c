// SPDX-License-Identifier: Apache-2.0
// FailingKernel: wraps another Kernel and makes chosen calls fail, to test error handling.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <postern/export.hpp>
#include <postern/forwarding_kernel.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern::sim {

/// A call that can fail.
struct KernelCall {
  std::string_view function;   ///< name of the Kernel function: "ioctl", "read_file"
  int fd = -1;                 ///< of calls on one
  unsigned long request = 0;   ///< of an ioctl
  void* argument = nullptr;    ///< of an ioctl
  std::string_view path = {};  ///< of calls on one
};

/// Forwards every call to another Kernel, simulated or real, and counts those that can fail. Calls that release
/// something (close, munmap) never fail: the kernel does not fail them for valid arguments. To fail each call of a
/// scenario in turn, run it with fail_call(0, code), fail_call(1, code), and so on, until it ends without failed():
///
///     for (int number = 0;; ++number) {
///       sim::Kernel simulated;  // a new one for each run: the last may have ended half way
///       sim::FailingKernel kernel(simulated);
///       kernel.fail_call(number, EIO);
///       const auto result = scenario(kernel);
///       if (!kernel.failed()) break;  // the scenario makes `number` calls
///       if (!result) continue;  // look at the error, and at what is left behind
///     }
///
/// Not every call that fails makes a scenario fail: the library looks for what a host may lack, and cleans up.
/// To see which call a number stands for, override begun(), which is given each call before it is made.
/// Thread safety: calls as Kernel; configure failures while no other thread makes a call.
class POSTERN_API FailingKernel : public ForwardingKernel {
 public:
  /// `real` must outlive this object.
  explicit FailingKernel(postern::Kernel& real) : ForwardingKernel(real) {}

  /// Fails call `number`, counted from 0, with this positive errno; a negative number fails none. Restarts the count.
  void fail_call(int number, int code);
  /// Fails all further ioctls with this request number, with a positive errno; request 0 fails none.
  void fail_ioctl(unsigned long request, int code);
  /// Called before an ioctl: a negated errno fails it without making it; 0 lets it run.
  std::function<int(unsigned long request, void* argument)> refuse;
  /// Called after an ioctl: returns the result to use, a negated errno for instance, and may change the argument.
  std::function<int(unsigned long request, void* argument, int result)> answer;
  /// Called after pread(), with the data read, or after read_file(): as `answer`.
  std::function<ssize_t(void* buffer, std::size_t length, std::uint64_t offset, ssize_t result)> answer_read;
  /// Called after read_file(): as `answer`.
  std::function<int(const std::string& path, std::string& contents, int result)> answer_file;

  [[nodiscard]] int calls() const { return count_; }      ///< number of calls since fail_call()
  [[nodiscard]] int open_files() const { return open_; }  ///< opened files, eventfds and device fds, minus closed ones
  /// Whether the call chosen by fail_call() was reached, and failed.
  [[nodiscard]] bool failed() const { return failing_ >= 0 && count_ > failing_; }
  /// The call that fail_call() made fail, if failed(): its function, and its path, or its fd and request; never its
  /// argument. Not while other threads make calls.
  [[nodiscard]] KernelCall failed_call() const;

  int open(const char* path, int flags) override;
  int close(int fd) override;
  int ioctl(int fd, unsigned long request, void* argument) override;
  ssize_t pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) override;
  ssize_t pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) override;
  ssize_t read(int fd, void* buffer, std::size_t length) override;
  ssize_t write(int fd, const void* buffer, std::size_t length) override;
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override;
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

 protected:
  /// For subclasses that record calls: before each call that can fail.
  virtual void begun(const KernelCall& /*call*/) {}
  /// For subclasses: after each open() passed on, whose result may be a negated errno, and each ioctl that succeeded.
  virtual void succeeded(const KernelCall& /*call*/, int /*result*/) {}

 private:
  [[nodiscard]] bool fails(const KernelCall& call);
  int opened(int fd);

  std::atomic<int> count_ = 0;
  std::atomic<int> open_ = 0;
  int failing_ = -1;
  int code_ = 0;
  KernelCall failed_call_;
  std::string failed_path_;  // of failed_call_
  unsigned long failing_ioctl_ = 0;
  int ioctl_code_ = 0;
};

}  // namespace postern::sim
