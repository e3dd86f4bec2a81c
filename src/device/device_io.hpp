// SPDX-License-Identifier: Apache-2.0
// DeviceIo: the interface to a device: VFIO's device requests. The kernel's device fd is one implementation.
#pragma once

#include <linux/vfio.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <postern/container.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <set>
#include <string>

#include "kernel/ioctl.hpp"

namespace postern {

class Group;

// Indices that are in exclusive use. Any thread may call it.
class IndexClaims {
 public:
  // Takes an index and returns true, unless it is taken.
  [[nodiscard]] bool take(std::uint32_t index) {
    const std::lock_guard lock(mutex_);
    return taken_.insert(index).second;
  }
  void release(std::uint32_t index) {
    const std::lock_guard lock(mutex_);
    taken_.erase(index);
  }
  [[nodiscard]] bool has(std::uint32_t index) {
    const std::lock_guard lock(mutex_);
    return taken_.count(index) != 0;
  }

 private:
  std::mutex mutex_;
  std::set<std::uint32_t> taken_;
};

// VFIO's device requests, with the uAPI's structs. Each returns what the ioctl of that name returns: 0 or more, or a
// negated errno. Offsets are those of the device fd, as in vfio_region_info.
class DeviceIo {
 public:
  DeviceIo() = default;
  DeviceIo(const DeviceIo&) = delete;
  DeviceIo& operator=(const DeviceIo&) = delete;
  virtual ~DeviceIo() = default;

  [[nodiscard]] virtual const std::string& name() const = 0;
  // The device fd; -1 if there is none.
  [[nodiscard]] virtual int fd() const noexcept { return -1; }
  [[nodiscard]] virtual int get_info(vfio_device_info& info) = 0;
  [[nodiscard]] virtual int get_region_info(vfio_region_info& info) = 0;
  [[nodiscard]] virtual int get_irq_info(vfio_irq_info& info) = 0;
  [[nodiscard]] virtual int set_irqs(vfio_irq_set& irqs) = 0;
  [[nodiscard]] virtual int ioeventfd(vfio_device_ioeventfd& /*ioeventfd*/) { return -ENOTTY; }
  [[nodiscard]] virtual int feature(vfio_device_feature& feature) = 0;
  [[nodiscard]] virtual int reset() = 0;
  [[nodiscard]] virtual int get_pci_hot_reset_info(vfio_pci_hot_reset_info& info) = 0;
  [[nodiscard]] virtual int pci_hot_reset(vfio_pci_hot_reset& reset) = 0;
  // The group through which the device was opened, which proves its ownership to the kernel; null if it was opened by
  // its cdev.
  [[nodiscard]] virtual const Group* group() const = 0;
  [[nodiscard]] virtual ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) = 0;
  // As Kernel::mmap() on the device.
  [[nodiscard]] virtual std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                           std::uint64_t offset) = 0;
  // The kernel by which mappings are unmapped.
  [[nodiscard]] virtual Kernel& kernel() = 0;
  // The container that has the device; null if none does.
  [[nodiscard]] virtual std::shared_ptr<Container> container() const { return nullptr; }
  // Moves the device to another container. container() tells which one has it then, also after an error.
  [[nodiscard]] virtual Result<void> move_to(const std::shared_ptr<Container>& /*container*/) {
    return refusal({.result = -EOPNOTSUPP, .object = name(), .reason = "it is in no container of the kernel"});
  }
  // Closes the device and detaches it from its container. Afterwards the DeviceIo may only be destroyed.
  [[nodiscard]] virtual Result<void> close() = 0;

  // The indices of interrupts that an InterruptSet has.
  IndexClaims claimed_interrupts;
};

}  // namespace postern
