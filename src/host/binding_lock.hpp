// SPDX-License-Identifier: Apache-2.0
// BindingLock: lets one thread at a time change the driver of a device.
#pragma once

#include <optional>
#include <postern/fd.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <set>
#include <string>
#include <utility>

namespace postern {

// Applies to the threads of this process and, with the system's kernel, to all processes of the host that use postern:
// by flock(2) on a separate folder, which only root can open. The kernel unlocks it when the process ends. Files of
// sysfs are not used, since any user may open them for reading, and could lock root out.
class BindingLock {
 public:
  // Never waits, since the owner may wait long for a device to be closed. Errors: EBUSY (another thread holds it),
  // EAGAIN (another process), those of creating the folder.
  [[nodiscard]] static Result<BindingLock> take(Kernel& kernel, const std::string& bus, const std::string& device,
                                                const std::string& folder = "/run/postern/lock");
  ~BindingLock();
  BindingLock(BindingLock&& other) noexcept;
  BindingLock(const BindingLock&) = delete;
  BindingLock& operator=(BindingLock&&) = delete;
  BindingLock& operator=(const BindingLock&) = delete;

 private:
  using Names = std::set<std::pair<Kernel*, std::string>>;  // by kernel: a simulated one has its own devices

  explicit BindingLock(Names::iterator held) : held_(held) {}
  [[nodiscard]] int lock_folder(const std::string& path, const char*& call);

  std::optional<Names::iterator> held_;  // none: moved from
  Fd fd_;
};

}  // namespace postern
