// SPDX-License-Identifier: Apache-2.0
// Kernel: dispatches the system calls, opens nodes, and runs the devices' thread.
#include <postern-sim/kernel.hpp>

#include <fcntl.h>
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

std::unique_ptr<Function> make(const HostFunction& described, const Host& host, Machine& machine) {
  const Platform platform = machine.platform;
  auto function =
      std::make_unique<Function>(described.address, described.iommu_group, make_hardware(described, platform));
  // powernv's ports have no interrupts, so no port driver.
  const bool is_port_of_powernv = described.model == HostFunction::Model::bridge && platform == Platform::powernv;
  if (!is_port_of_powernv) function->native_driver = name_of(described.model).native_driver;
  function->driver_override = described.driver;
  function->ops = std::make_unique<VfioPci>(machine, *function);
  function->interrupts().can_add_vectors = host.dynamic_msix && (platform == Platform::pc || platform == Platform::arm);
  return function;
}

// The number of forks between the first kernel and this process. Every call checks it; getpid(2) would cost as much as
// the rest of a short call.
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
  State* left_before = nullptr;  // the previous copy that a child of fork(2) left behind

  explicit State(const Host& host) {
    if (auto possible = check_host(host); !possible) {
      log(LogKind::remark, possible.error());
      made_ = -EINVAL;
      return;
    }
    machine.process.memory_limit = host.locked_memory;
    machine.mapping_limit = host.mapping_limit;
    machine.unsafe_noiommu = host.enable_unsafe_noiommu_mode;
    machine.iommu = make_iommu_model(host);
    machine.platform = host.platform;
    machine.tce = make_tce_platform(host.platform);
    for (const HostFunction& function : host.functions) machine.add(make(function, host, machine));
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
  ~State() = default;  // after end()
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // Stops the devices and closes all files; false: some were open. From then on every call fails.
  [[nodiscard]] bool end() noexcept {
    {
      const Machine::Lock lock(machine.mutex);
      stopping_ = true;
      machine.changed.notify_all();
    }
    if (hardware_.joinable()) hardware_.join();
    const bool in_use = tell_of_open_files();
    machine.process.exit();  // closes files, so devices leave their iommufds
    made_ = -ESTALE;
    return !in_use;
  }

  // Called before each call: returns 0 with the lock held, or an errno without it.
  [[nodiscard]] int enter(Machine::Lock& lock) {
    if (!is_of_this_process()) {
      tell_of_fork();
      return -ESTALE;
    }
    if (made_ < 0) return made_;
    lock = Machine::Lock(machine.mutex);
    return 0;
  }
  // A child of fork(2) has a copy of this object without the devices' thread, and with a lock that may be held for
  // ever.
  [[nodiscard]] bool is_of_this_process() const noexcept { return forks.load(std::memory_order_relaxed) == forks_; }

  [[nodiscard]] int open(const std::string& path) {
    FileStatus status;
    if (const int result = sysfs.status(path, status); result < 0) return result;
    const int fd = open_node(path);
    if (fd >= 0) machine.process.files.find(fd)->opened_as(path, status);
    return fd;
  }

  Machine machine;
  Sysfs sysfs{machine};
  ProcSelf proc_self{machine.process};

 private:
  [[nodiscard]] int open_node(const std::string& path);
  void run_hardware();
  void tell_of_fork() noexcept;
  bool tell_of_open_files() noexcept;

  const pid_t process_ = ::getpid();
  const unsigned forks_ = count_forks();
  int made_ = 0;  // or the negated errno of a resource that could not be allocated
  std::atomic<bool> has_told_ = false;
  bool stopping_ = false;
  std::thread hardware_;
};

int Kernel::State::open_node(const std::string& path) {
  OpenFiles& files = machine.process.files;
  if (path == "/dev/vfio/vfio") return files.give(std::make_shared<ContainerFile>(machine));
  if (path == "/dev/iommu") return files.give(std::make_shared<Iommufd>(machine.iommu, machine.process));
  // Compares the numbers first, so that only the name of one function or group is built.
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

// While a function is open, its hardware is polled continuously; the lock is released in between.
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
        // A slow device: it retries.
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

// Only once, not for every object that a child destroys.
void Kernel::State::tell_of_fork() noexcept {
  if (has_told_.exchange(true)) return;
  log(LogKind::remark,
      Error({.code = ESTALE,
             .operation = "use simulated kernel",
             .object = fmt::format("simulated kernel of process {}", process_),
             .reason = fmt::format(
                 "process {} is a child of it, made by fork(2), and has neither its devices nor its lock", ::getpid()),
             .remedy = "use it in the process that created it, or create another one after fork(2)",
             .causes = {}}));
}

// Whether any is open or mapped.
bool Kernel::State::tell_of_open_files() noexcept {
  const auto& files = machine.process.files.all();
  const bool maps_bars = machine.process.mapped_files.bytes_in(0, std::uint64_t{1} << 63) != 0;
  if (files.empty() && !maps_bars) return false;
  try {
    std::vector<std::string> open;
    open.reserve(files.size() + 1);
    for (const auto& [fd, file] : files) open.push_back(file->path);
    if (maps_bars) open.emplace_back("mapped BARs");
    log(LogKind::tear_down,
        Error({.code = EBUSY,
               .operation = "",
               .object = "simulated kernel",
               .reason = fmt::format("it is destroyed while these are in use: {}", fmt::join(open, ", ")),
               .remedy = "destroy what was attached through it before it",
               .causes = {}}));
  } catch (const std::bad_alloc&) {
  }
  return true;
}

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
