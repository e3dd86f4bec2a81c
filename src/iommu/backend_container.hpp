// SPDX-License-Identifier: Apache-2.0
// BackendContainer: the part of a container that differs between backends. AddressSpace holds one, and has checked all
// arguments before it calls it.
#pragma once

#include <cerrno>
#include <cstdint>
#include <memory>
#include <postern/container.hpp>
#include <postern/iova.hpp>
#include <postern/kernel.hpp>
#include <postern/kvm.hpp>
#include <postern/locked_memory.hpp>
#include <postern/mapping.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>

#include "iommu/attached.hpp"
#include "iommu/dirty_log.hpp"

namespace postern {

class AddressSpace;

// The result of a system call, and its name: null if the backend refused before making a call.
struct CallResult {
  int result = 0;  // 0 or more, or a negated errno
  const char* call = nullptr;
};

class BackendContainer {
 public:
  enum class WhenEmpty : std::uint8_t { keeps_mappings, clears_mappings };
  struct Traits {  // constants of a backend
    std::string_view name;
    std::string_view unmap;  // name of the unmap ioctl, for errors
    WhenEmpty when_empty;    // what the kernel does with the mappings when the last device detaches
  };

  BackendContainer(Kernel& kernel, const Traits& traits) noexcept : kernel_(&kernel), traits_(traits) {}
  virtual ~BackendContainer() = default;
  BackendContainer(const BackendContainer&) = delete;
  BackendContainer& operator=(const BackendContainer&) = delete;

  [[nodiscard]] Kernel& kernel() const noexcept { return *kernel_; }
  [[nodiscard]] const Traits& traits() const noexcept { return traits_; }
  [[nodiscard]] AddressSpace& space() const noexcept { return *space_; }
  void belong_to(AddressSpace& space) noexcept { space_ = &space; }  // called once, before everything else

  [[nodiscard]] virtual CallResult map(Iova iova, std::uint64_t length, void* address, Access access) = 0;
  // Whether map_file() may be called. If it returns -ENOTTY, the kernel is too old, and takes only addresses after all.
  [[nodiscard]] virtual bool maps_files() const noexcept { return false; }
  [[nodiscard]] virtual CallResult map_file(Iova /*iova*/, const Memory& /*memory*/, Access /*access*/) {
    return {.result = -ENOTTY};
  }
  // Maps what another container of the same backend maps at the same iovas, without counting its pages again. -ENOTTY:
  // the kernel cannot.
  [[nodiscard]] virtual CallResult copy(const BackendContainer& /*from*/, IovaRange /*range*/, Access /*access*/) {
    return {.result = -ENOTTY};
  }
  // The counter of locked memory to which a map adds what it pins.
  [[nodiscard]] virtual LockedMemoryCounter locked_memory_counter() const { return LockedMemoryCounter::process; }
  // Unmaps one mapping. Returns 0, a negated errno, or 1 if the call succeeded but unmapped nothing.
  [[nodiscard]] virtual int unmap(Iova iova, std::uint64_t length) = 0;
  // Unmaps whatever the range contains, possibly nothing. Must be restartable after a partial failure.
  [[nodiscard]] virtual int unmap_several(IovaRange range) { return unmap(range.first, range.length()); }
  [[nodiscard]] virtual int unmap_all();  // by default one by one

  // Attaching has three steps, so that several devices can be opened at once. If prepare() or open() fails for one of
  // them, those that were opened are detached, and release_unused() undoes the rest. KVM, if it is not null, is told of
  // the group or cdev before the device is opened. 1. Makes it possible to open the device: its group joins. For one
  // device at a time.
  [[nodiscard]] virtual Result<void> prepare(const HostDevice& /*device*/,
                                             const std::shared_ptr<const KvmVfioDevice>& /*kvm*/) {
    return {};
  }
  // 2. Opens the device, which takes long. May run for several devices at once.
  [[nodiscard]] virtual Result<std::unique_ptr<Attached>> open(
      const HostDevice& device, const std::shared_ptr<const KvmVfioDevice>& kvm) const = 0;
  // 3. Connects the device to the mappings. For one device at a time; space().devices() contains it already. After an
  // error, detach() is called.
  [[nodiscard]] virtual Result<void> connect(Attached& /*device*/) { return {}; }
  // Releases what prepare() made and no device of space().devices() needs.
  [[nodiscard]] virtual Result<void> release_unused() { return {}; }

  // Whether a device can come here from a container of the same backend without being closed. `object` is for errors.
  [[nodiscard]] virtual Result<void> check_take_over(const Attached& device, const BackendContainer& from,
                                                     const std::string& object) const;
  // Takes it over, in one step: after an error it is where it was. space().devices() does not have it yet. If
  // `is_tracked`, its IOMMU logs its writes from the first on.
  [[nodiscard]] virtual Result<void> take_over(Attached& /*device*/, bool /*is_tracked*/) { return {}; }

  // Detaches the device and closes its fd, where the kernel interface requires it. space().devices() has only the
  // others.
  [[nodiscard]] virtual Result<void> detach(Attached& device) = 0;
  [[nodiscard]] virtual Result<void> close() = 0;
  [[nodiscard]] virtual Result<ContainerLimits> read_limits() = 0;

  // Explains why map() failed, if the backend knows more than the generic message; empty if it does not. A remedy
  // without a reason is added to the generic one.
  struct Explanation {
    ErrorKind kind = ErrorKind::other;
    std::string reason = {};
    Remedies remedy = {};
  };
  [[nodiscard]] virtual Explanation explain_map(CallResult failed, IovaRange range, const void* address) const;

  [[nodiscard]] virtual Container::Properties properties() const = 0;
  // The IOMMU's log of dirty pages; null: it has none, and the container has no DirtyTracker.
  [[nodiscard]] virtual DirtyLog* dirty_log() noexcept { return nullptr; }
  // A capability by its name, as Container::get(); null: the backend does not have it.
  [[nodiscard]] virtual void* find_capability(std::string_view /*name*/) noexcept { return nullptr; }

 private:
  Kernel* kernel_;
  Traits traits_;
  AddressSpace* space_ = nullptr;
};

}  // namespace postern
