// SPDX-License-Identifier: Apache-2.0
// Kernel::State: a simulated machine, the files that a process has open on it, and the devices' thread.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <postern-sim/kernel.hpp>
#include <string>
#include <thread>

#include "sim/machine/machine.hpp"
#include "sim/process/proc_self.hpp"
#include "sim/sysfs/sysfs.hpp"

namespace postern::sim {

class Kernel::State {
 public:
  State* left_before = nullptr;  // the previous copy that a child of fork(2) left behind

  explicit State(const Host& host);
  ~State() = default;  // after end()
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  // Stops the devices and closes all files; false: some were open. From then on every call fails.
  [[nodiscard]] bool end() noexcept;

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

  [[nodiscard]] int open(const std::string& path);

  Machine machine;
  Sysfs sysfs{machine};
  ProcSelf proc_self{machine.process};

 private:
  // The number of forks between the first kernel and this process. Every call checks it; getpid(2) would cost as much
  // as the rest of a short call.
  static std::atomic<unsigned> forks;
  static unsigned count_forks();

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

}  // namespace postern::sim
