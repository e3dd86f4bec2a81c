// SPDX-License-Identifier: Apache-2.0
// BindingLock: one at a time moves a device between drivers.
#pragma once

#include <optional>
#include <postern/fd.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <set>
#include <string>
#include <utility>

namespace postern {

// Holds for the threads of this process, and on the system's kernel for all processes of the host that use postern: by
// flock(2) on a folder of its own, which root alone can open, and which the kernel lets go of when the process ends. No
// file of sysfs is taken for it: anybody may open those to read, and so could keep root out.
class BindingLock {
 public:
  // Never waits: who holds it may wait long for a device to be closed. Errors: EBUSY (another holds it), those of
  // making the folder.
  [[nodiscard]] static Result<BindingLock> take(Kernel& kernel, const std::string& bus, const std::string& device,
                                                const std::string& folder = "/run/postern/lock");
  ~BindingLock();
  BindingLock(BindingLock&& other) noexcept;
  BindingLock(const BindingLock&) = delete;
  BindingLock& operator=(BindingLock&&) = delete;
  BindingLock& operator=(const BindingLock&) = delete;

 private:
  using Names = std::set<std::pair<Kernel*, std::string>>;  // by kernel: a simulated one has devices of its own

  explicit BindingLock(Names::iterator held) : held_(held) {}
  [[nodiscard]] int lock_folder(const std::string& path, const char*& call);

  std::optional<Names::iterator> held_;  // none: moved from
  Fd fd_;
};

}  // namespace postern
