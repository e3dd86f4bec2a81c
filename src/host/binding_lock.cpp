// SPDX-License-Identifier: Apache-2.0
// BindingLock: the lock on a device's binding.
#include "host/binding_lock.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <mutex>
#include <set>
#include <utility>

#include "kernel/ioctl.hpp"

namespace postern {
namespace {

// The bindings that this process has locked.
struct HeldBindings {
  std::mutex mutex;
  std::set<std::pair<Kernel*, std::string>> names;
};

HeldBindings& held_bindings() {
  static auto* const held = new HeldBindings;  // never destroyed: a global may release its lock after main()
  return *held;
}

int make_folder(const std::string& folder) {
  for (auto at = folder.find('/', 1); at != std::string::npos; at = folder.find('/', at + 1)) {
    if (::mkdir(folder.substr(0, at).c_str(), 0755) < 0 && errno != EEXIST) return -errno;
  }
  return ::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

CallFailed held_by_another(int result, const std::string& device, const char* who) {
  return {.result = result,
          .kind = ErrorKind::in_use,
          .object = "driver of " + device,
          .reason = fmt::format("another {} is changing it", who),
          .remedy = RemedyCode::try_again};
}

}  // namespace

Result<BindingLock> BindingLock::take(Kernel& kernel, const std::string& bus, const std::string& device,
                                      const std::string& folder) {
  const std::string name = fmt::format("{}-{}", bus, device);
  std::unique_lock guard(held_bindings().mutex);
  const auto [place, is_new] = held_bindings().names.emplace(&kernel, name);
  guard.unlock();
  if (!is_new) return refusal(held_by_another(-EBUSY, device, "thread of this process"));
  BindingLock lock(place);
  if (&kernel != &system_kernel()) return lock;
  const std::string path = fmt::format("{}/{}", folder, name);
  const char* call = "mkdir";
  const int result = lock.lock_folder(path, call);
  if (result >= 0) return lock;
  if (result == -EWOULDBLOCK) return call_failure(call, held_by_another(result, device, "process"));
  const bool denied = result == -EACCES || result == -EPERM;
  return call_failure(call, {.result = result,
                             .object = path,
                             .reason = "the lock on the driver of " + device + " cannot be taken",
                             .remedy = denied ? RemedyCode::run_as_root : RemedyCode::make_run_writable});
}

int BindingLock::lock_folder(const std::string& path, const char*& call) {
  if (const int result = make_folder(path); result < 0) return result;
  Kernel& kernel = system_kernel();
  call = "open";
  const int fd = kernel.open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (fd < 0) return fd;
  fd_ = Fd(kernel, fd);
  call = "flock";
  return ::flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

BindingLock::BindingLock(BindingLock&& other) noexcept
    : held_(std::exchange(other.held_, std::nullopt)), fd_(std::move(other.fd_)) {}

BindingLock::~BindingLock() {
  if (!held_) return;
  fd_.reset();
  const std::lock_guard guard(held_bindings().mutex);
  held_bindings().names.erase(*held_);
}

}  // namespace postern
