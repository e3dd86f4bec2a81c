// SPDX-License-Identifier: Apache-2.0
// Kernel: what a call goes to, opening nodes, and the thread that the devices run in.
#include <postern-sim/kernel.hpp>

#include <fmt/format.h>
#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "base/log.hpp"
#include "sim/hosts/hardware_models.hpp"
#include "sim/hosts/hosts.hpp"
#include "sim/iommufd/iommufd.hpp"
#include "sim/laboratory.hpp"
#include "sim/machine/machine.hpp"
#include "sim/process/proc_self.hpp"
#include "sim/sysfs/sysfs.hpp"
#include "sim/vfio/device_file.hpp"
#include "sim/vfio/group_file.hpp"
#include "sim/vfio/pci/vfio_pci.hpp"

namespace postern::sim {
namespace {

std::unique_ptr<Function> make(const HostFunction& described, Machine& machine) {
  const Platform platform = machine.platform;
  auto function =
      std::make_unique<Function>(described.address, described.iommu_group, make_hardware(described, platform));
  // powernv's ports have no interrupts for a port driver.
  const bool is_port_of_powernv = described.model == HostFunction::Model::bridge && platform == Platform::powernv;
  if (!is_port_of_powernv) function->native_driver = name_of(described.model).native_driver;
  function->driver_override = described.driver;
  function->ops = std::make_unique<VfioPci>(machine, *function);
  function->interrupts().can_add_vectors = platform == Platform::pc || platform == Platform::arm;
  return function;
}

// How many fork(2)s led to this process since the first kernel was made. Each call asks, and getpid(2) would cost as
// much as the rest of a short one.
std::atomic<unsigned> forks = 0;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): of pthread_atfork(3)
unsigned count_forks() {
  static const int registered =
      ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  (void)registered;
  return forks.load(std::memory_order_relaxed);
}

}  // namespace

class Kernel::State {
 public:
  State* left_before = nullptr;  // what a child of fork(2) left before this one

  explicit State(const Host& host) {
    machine.process.memory_limit = host.locked_memory;
    machine.mapping_limit = host.mapping_limit;
    machine.unsafe_noiommu = host.enable_unsafe_noiommu_mode;
    machine.iommu = make_iommu_model(host);
    machine.platform = host.platform;
    machine.tce = make_tce_platform(host.platform);
    for (const HostFunction& function : host.functions) machine.add(make(function, machine));
    made_ = machine.process.opened();
    if (made_ == 0) made_ = machine.connect();
    if (made_ < 0) return;
    for (const auto& [address, function] : machine.functions) (void)machine.probe(*function);
    try {
      hardware_ = std::thread([this] { run_hardware(); });
    } catch (const std::system_error& failed) {
      made_ = -failed.code().value();
    }
  }
  ~State() {
    {
      const Machine::Lock lock(machine.mutex);
      stopping_ = true;
      machine.changed.notify_all();
    }
    if (hardware_.joinable()) hardware_.join();
    machine.process.exit();  // devices leave their iommufds
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // What comes before each call: 0 and the lock; or, without it, why there is no answer.
  [[nodiscard]] int enter(Machine::Lock& lock) {
    if (!is_of_this_process()) {
      tell_of_fork();
      return -ESTALE;
    }
    if (made_ < 0) return made_;
    lock = Machine::Lock(machine.mutex);
    return 0;
  }
  // A child of fork(2) has a copy of all this without the devices' thread, and with a lock that may be held for ever.
  [[nodiscard]] bool is_of_this_process() const noexcept { return forks.load(std::memory_order_relaxed) == forks_; }

  [[nodiscard]] int open(const std::string& path) {
    const int fd = open_node(path);
    if (fd >= 0) machine.process.files.find(fd)->path = path;
    return fd;
  }

  Machine machine;
  Sysfs sysfs{machine};
  ProcSelf proc_self{machine.process};

 private:
  [[nodiscard]] int open_node(const std::string& path);
  void run_hardware();
  void tell_of_fork() noexcept;

  const pid_t process_ = ::getpid();
  const unsigned forks_ = count_forks();
  int made_ = 0;  // or the negated errno of what could not be had for it
  std::atomic<bool> has_told_ = false;
  bool stopping_ = false;
  std::thread hardware_;
};

int Kernel::State::open_node(const std::string& path) {
  FileStatus status;
  if (const int result = sysfs.status(path, status); result < 0) return result;
  OpenFiles& files = machine.process.files;
  if (path == "/dev/vfio/vfio") return files.give(std::make_shared<ContainerFile>(machine));
  if (path == "/dev/iommu") return files.give(std::make_shared<Iommufd>(machine.iommu, machine.process));
  // The numbers first: names are made of the one function or group alone that can be it.
  int number = -1;
  std::from_chars(path.data() + path.find_last_not_of("0123456789") + 1, path.data() + path.size(), number);
  for (const auto& [address, function] : machine.functions) {
    if (function->minor == number && path == "/dev/vfio/devices/" + cdev_name(*function)) {
      // vfio_device_fops_cdev_open
      if (!function->has_iommu() && !machine.process.is_privileged()) return -EPERM;
      return files.give(std::make_shared<DeviceFile>(machine, *function));
    }
  }
  const auto found = machine.groups.find(number);
  if (found != machine.groups.end() && path == "/dev/vfio/" + node_name(found->second)) {
    auto& group = found->second;
    // vfio_group_fops_open
    if (group.is_noiommu && !machine.process.is_privileged()) return -EPERM;
    if (group.file != nullptr || group.open_cdevs > 0) return -EBUSY;
    return files.give(std::make_shared<GroupFile>(machine, group));
  }
  return -EACCES;
}

// While a function is open its hardware is looked after all the time; between times others get the lock.
void Kernel::State::run_hardware() {
  Machine::Lock lock(machine.mutex);
  while (!stopping_) {
    bool any_open = false;
    bool worked = false;
    for (const auto& [address, function] : machine.functions) {
      if (function->opens == 0) continue;
      any_open = true;
      try {
        worked = function->poll() || worked;
      } catch (const std::bad_alloc&) {
        // A device that is slow: it tries again.
      }
    }
    if (!any_open) {
      machine.changed.wait(lock);
      continue;
    }
    lock.unlock();
    if (worked) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    lock.lock();
  }
}

// Once: who destroys many things in a child need not hear it of each.
void Kernel::State::tell_of_fork() noexcept {
  if (has_told_.exchange(true)) return;
  log(LogKind::remark,
      Error({.code = ESTALE,
             .operation = "use simulated kernel",
             .object = fmt::format("simulated kernel of process {}", process_),
             .reason = fmt::format("process {} came of that by fork(2), and has neither its devices nor its lock",
                                   ::getpid()),
             .remedy = "use it in the process that made it, or make another one after fork(2)",
             .causes = {}}));
}

Kernel::Kernel(const Host& host) : state_(std::make_unique<State>(host)) {}

// A child's copy cannot be taken apart: its thread cannot be joined, nor its lock taken. It stays, where leak checkers
// find it.
Kernel::~Kernel() {
  if (state_->is_of_this_process()) return;
  static State* left = nullptr;
  state_->left_before = std::exchange(left, state_.get());
  static_cast<void>(state_.release());
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
  if (!state_->is_of_this_process()) return -ESTALE;  // a child lets its copies go, which is nothing to tell of
  Machine::Lock lock;
  const int result = state_->enter(lock);
  return result < 0 ? result : state_->machine.process.close(fd);
}

// What a call on one of our fds gives: call(file).
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
  // Whatever was there before, by MAP_FIXED or after a munmap(2) of the process's own, is not any more.
  const auto start = static_cast<std::uintptr_t>(mapped);
  process.unmapped(start, length);
  if (is_ours) process.mapped_files.add(start, length, file);
  return mapped;
}

// Memory is the process's, whatever became of this kernel.
int Kernel::munmap(void* address, std::size_t length) {
  Machine::Lock lock;
  const bool is_usable = state_->is_of_this_process() && state_->enter(lock) == 0;
  const int result = system_kernel().munmap(address, length);
  if (is_usable && result == 0) state_->machine.process.unmapped(reinterpret_cast<std::uintptr_t>(address), length);
  return result;
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
  // Nobody outside of this process can be on a simulated host: whoever looks for others is in its first PID namespace.
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
