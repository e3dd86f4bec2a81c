// SPDX-License-Identifier: Apache-2.0
// Kernel: dispatches the system calls.
#include <postern-sim/kernel.hpp>

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sim/kernel_state.hpp"
#include "sim/laboratory.hpp"

namespace postern::sim {

Kernel::Kernel(const Host& host) : state_(new State(host)) {}

// A child's copy cannot be destroyed: its thread cannot be joined, nor its lock taken. It is kept reachable for leak
// checkers. So is the state of a kernel that is destroyed before its users, so that their calls fail instead of waiting
// for a lock that no longer exists.
Kernel::~Kernel() {
  if (state_->is_of_this_process() && state_->end()) {
    delete state_;
    return;
  }
  static State* left = nullptr;
  state_->left_before = std::exchange(left, state_);
}

bool Laboratory::wrap(Kernel& kernel, PciAddress address, const Wrap& wrap) {
  Machine& machine = kernel.state_->machine;
  const Machine::Lock lock(machine.mutex);
  Function* const function = machine.find(to_string(address));
  if (function != nullptr) function->wrap_hardware(wrap);
  return function != nullptr;
}

int Kernel::open(const char* path, int flags) {
  const std::string name(path);
  if (!Sysfs::shows(name)) return system_kernel().open(path, flags);
  Machine::Lock lock;
  if (const int result = state_->enter(lock); result < 0) return result;
  return state_->open(name);
}

int Kernel::close(int fd) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().close(fd);
  if (!state_->is_of_this_process()) return -ESTALE;  // a child destroys its copies, which is not worth a message
  Machine::Lock lock;
  const int result = state_->enter(lock);
  return result < 0 ? result : state_->machine.process.close(fd);
}

// Returns the result of a call on one of the simulated fds: call(file).
template <typename Call>
auto Kernel::on_file(int fd, Call call) {
  Machine::Lock lock;
  using Given = decltype(call(std::declval<File&>()));
  if (const int result = state_->enter(lock); result < 0) return static_cast<Given>(result);
  const auto file = state_->machine.process.files.find(fd);
  return file ? call(*file) : static_cast<Given>(-EBADF);
}

int Kernel::ioctl(int fd, unsigned long request, void* argument) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().ioctl(fd, request, argument);
  return on_file(fd, [&](File& file) { return file.ioctl(request, argument); });
}

ssize_t Kernel::pread(int fd, void* buffer, std::size_t length, std::uint64_t offset) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().pread(fd, buffer, length, offset);
  return on_file(fd, [&](File& file) { return file.pread(buffer, length, offset); });
}

ssize_t Kernel::pwrite(int fd, const void* buffer, std::size_t length, std::uint64_t offset) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().pwrite(fd, buffer, length, offset);
  return on_file(fd, [&](File& file) { return file.pwrite(buffer, length, offset); });
}

ssize_t Kernel::read(int fd, void* buffer, std::size_t length) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().read(fd, buffer, length);
  return on_file(fd, [&](File& file) { return file.read(buffer, length); });
}

ssize_t Kernel::write(int fd, const void* buffer, std::size_t length) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().write(fd, buffer, length);
  return on_file(fd, [&](File& file) { return file.write(buffer, length); });
}

std::intptr_t Kernel::mmap(void* address, std::size_t length, int protection, int flags, int fd, std::uint64_t offset) {
  const bool is_ours = OpenFiles::is_ours(fd);
  Machine::Lock lock;
  if (const int result = state_->enter(lock); result < 0) {
    return is_ours ? result : system_kernel().mmap(address, length, protection, flags, fd, offset);
  }
  Process& process = state_->machine.process;
  const auto file = is_ours ? process.files.find(fd) : nullptr;
  if (is_ours && !file) return -EBADF;
  const std::intptr_t mapped = is_ours ? file->mmap(address, length, protection, flags, offset)
                                       : system_kernel().mmap(address, length, protection, flags, fd, offset);
  if (is_errno(mapped)) return mapped;
  // The new mapping replaces what was there before, by MAP_FIXED or after the process's own munmap(2).
  const auto start = static_cast<std::uintptr_t>(mapped);
  process.unmapped(start, length);
  if (is_ours) process.mapped_files.add(start, length, file);
  return mapped;
}

int Kernel::open_bars(int fd, std::uint64_t& offset) {
  if (!OpenFiles::is_ours(fd)) return -EBADF;
  return on_file(fd, [&](const File& file) -> int {
    const std::int64_t place = file.place_in_bars(offset);
    if (place < 0) return static_cast<int>(place);
    const int copy = ::fcntl(state_->machine.bar_memory.fd(), F_DUPFD_CLOEXEC, 0);
    if (copy < 0) return -errno;
    offset = static_cast<std::uint64_t>(place);
    return copy;
  });
}

// The memory belongs to the process, even if this kernel is unusable.
int Kernel::munmap(void* address, std::size_t length) {
  Machine::Lock lock;
  const bool is_usable = state_->is_of_this_process() && state_->enter(lock) == 0;
  const int result = system_kernel().munmap(address, length);
  if (is_usable && result == 0) state_->machine.process.unmapped(reinterpret_cast<std::uintptr_t>(address), length);
  return result;
}

// Files of memory are the system's.
int Kernel::fstat(int fd, FileStatus& status) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().fstat(fd, status);
  return on_file(fd, [&](const File& file) { return file.fstat(status); });
}

std::int64_t Kernel::lseek(int fd, std::uint64_t offset, int whence) {
  if (!OpenFiles::is_ours(fd)) return system_kernel().lseek(fd, offset, whence);
  return on_file(fd, [&](File& file) { return file.lseek(offset, whence); });
}

int Kernel::eventfd() { return system_kernel().eventfd(); }

int Kernel::read_file(const std::string& path, std::string& contents) {
  Machine::Lock lock;
  if (const int result = state_->enter(lock); result < 0) return result;
  if (Sysfs::shows(path)) return state_->sysfs.read_file(path, contents);
  const int result = system_kernel().read_file(path, contents);
  state_->proc_self.read_file(path, contents);
  return result;
}

int Kernel::write_file(const std::string& path, const std::string& contents) {
  Machine::Lock lock;
  const int result = state_->enter(lock);
  return result < 0 ? result : state_->sysfs.write_file(path, contents, lock);
}

int Kernel::list_directory(const std::string& path, std::vector<std::string>& names) {
  Machine::Lock lock;
  if (const int result = state_->enter(lock); result < 0) return result;
  if (Sysfs::shows(path)) return state_->sysfs.list_directory(path, names);
  const int result = system_kernel().list_directory(path, names);
  state_->proc_self.list_directory(path, names);
  return result;
}

int Kernel::read_link(const std::string& path, std::string& target) {
  // No other process can use a simulated host: this process is in its initial PID namespace.
  if (path == "/proc/self/ns/pid") {
    target = "pid:[4026531836]";
    return 0;
  }
  const bool is_fd = ProcSelf::is_fd(path);
  if (!is_fd && !Sysfs::shows(path)) return system_kernel().read_link(path, target);
  Machine::Lock lock;
  if (const int result = state_->enter(lock); result < 0) return result;
  if (!is_fd) return state_->sysfs.read_link(path, target);
  if (state_->proc_self.read_link(path, target)) return 0;
  return system_kernel().read_link(path, target);
}

int Kernel::status(const std::string& path, FileStatus& status) {
  if (!Sysfs::shows(path)) return system_kernel().status(path, status);
  Machine::Lock lock;
  const int result = state_->enter(lock);
  return result < 0 ? result : state_->sysfs.status(path, status);
}

int Kernel::access(const std::string& path, int mode) {
  if (!Sysfs::shows(path)) return system_kernel().access(path, mode);
  FileStatus found;
  return status(path, found);
}

}  // namespace postern::sim
