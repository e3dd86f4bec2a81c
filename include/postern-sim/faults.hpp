// SPDX-License-Identifier: Apache-2.0
// FailingKernel: another Kernel, of which chosen calls fail: for testing what a program does then.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <postern/export.hpp>
#include <postern/kernel.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace postern::sim {

// One call that can fail, as it is made.
struct KernelCall {
  std::string_view function;  // of Kernel: "ioctl", "read_file"
  int fd = -1;
  unsigned long request = 0;  // of an ioctl
  void* argument = nullptr;   // of an ioctl
  std::string_view path = {};
};

// Passes every call on to another Kernel, simulated or real, and counts those that can fail. Calls that give things
// back (close, munmap) never fail: the kernel does not fail them for a valid argument. To fail each call of a scenario
// in turn, run it with fail_call(0, code), fail_call(1, code), and so on, until it ends without failed(). Thread rules:
// as Kernel for the calls; what is to fail is set while no other thread makes one. `real` must outlive it.
class POSTERN_API FailingKernel : public postern::Kernel {
 public:
  explicit FailingKernel(postern::Kernel& real) : real_(real) {}

  // Fails the call that comes after `number` others by this errno, which is positive; a negative number fails none.
  // Begins to count anew.
  void fail_call(int number, int code);
  // Fails every ioctl of this number, from now on; 0 fails none.
  void fail_ioctl(unsigned long request, int code);
  // Refuses an ioctl before the real one runs, by a negated errno; 0 lets it run.
  std::function<int(unsigned long request, void* argument)> refuse;
  // Replaces what an ioctl answers, after the real one has run: an errno, or changed contents.
  std::function<int(unsigned long request, void* argument, int result)> answer;
  // The same for pread(), whose buffer holds what was read, and for read_file().
  std::function<ssize_t(void* buffer, std::size_t length, std::uint64_t offset, ssize_t result)> answer_read;
  std::function<int(const std::string& path, std::string& contents, int result)> answer_file;

  [[nodiscard]] int calls() const { return count_; }      // since fail_call()
  [[nodiscard]] int open_files() const { return open_; }  // opened and given by ioctls, less closed
  // Whether the call that fail_call() named was made.
  [[nodiscard]] bool failed() const { return failing_ >= 0 && count_ > failing_; }

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
  int eventfd() override;
  int read_file(const std::string& path, std::string& contents) override;
  int write_file(const std::string& path, const std::string& contents) override;
  int list_directory(const std::string& path, std::vector<std::string>& names) override;
  int read_link(const std::string& path, std::string& target) override;
  int status(const std::string& path, FileStatus& status) override;
  int access(const std::string& path, int mode) override;

 protected:
  // For who keeps a record: before each call that can fail, and after an open or ioctl that did not.
  virtual void begun(const KernelCall& /*call*/) {}
  virtual void succeeded(const KernelCall& /*call*/, int /*result*/) {}

 private:
  [[nodiscard]] bool fails(const KernelCall& call);
  int opened(int fd);

  postern::Kernel& real_;
  std::atomic<int> count_ = 0;
  std::atomic<int> open_ = 0;
  int failing_ = -1;
  int code_ = 0;
  unsigned long failing_ioctl_ = 0;
  int ioctl_code_ = 0;
};

}  // namespace postern::sim
