// SPDX-License-Identifier: Apache-2.0
// Kernel::State: boots the machine, opens nodes, and runs the devices' thread.
#include "sim/kernel_state.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <new>
#include <system_error>
#include <utility>

#include "base/log.hpp"
#include "sim/hosts/hardware_models.hpp"
#include "sim/hosts/hosts.hpp"
#include "sim/iommufd/iommufd.hpp"
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

}  // namespace

// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): of pthread_atfork(3)
std::atomic<unsigned> Kernel::State::forks = 0;

unsigned Kernel::State::count_forks() {
  static const int registered =
      ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); });
  (void)registered;
  return forks.load(std::memory_order_relaxed);
}

Kernel::State::State(const Host& host) {
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

bool Kernel::State::end() noexcept {
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

int Kernel::State::open(const std::string& path) {
  FileStatus status;
  if (const int result = sysfs.status(path, status); result < 0) return result;
  const int fd = open_node(path);
  if (fd >= 0) machine.process.files.find(fd)->opened_as(path, status);
  return fd;
}

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

}  // namespace postern::sim
