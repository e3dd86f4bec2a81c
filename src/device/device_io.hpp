// SPDX-License-Identifier: Apache-2.0
// DeviceIo: how a device is reached. A kernel's device fd is one way; anything that answers VFIO's device requests is
// another.
#pragma once

#include <linux/vfio.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

class Group;

// VFIO's requests on a device, with the uAPI's own structs. Each gives what the ioctl of its name gives: 0 or more, or
// a negated errno. Offsets are in the device fd, as vfio_region_info has them.
class DeviceIo {
 public:
  DeviceIo() = default;
  DeviceIo(const DeviceIo&) = delete;
  DeviceIo& operator=(const DeviceIo&) = delete;
  virtual ~DeviceIo() = default;

  [[nodiscard]] virtual const std::string& name() const = 0;
  [[nodiscard]] virtual int get_info(vfio_device_info& info) = 0;
  [[nodiscard]] virtual int get_region_info(vfio_region_info& info) = 0;
  [[nodiscard]] virtual int get_irq_info(vfio_irq_info& info) = 0;
  [[nodiscard]] virtual int set_irqs(vfio_irq_set& irqs) = 0;
  [[nodiscard]] virtual int feature(vfio_device_feature& feature) = 0;
  [[nodiscard]] virtual int reset() = 0;
  [[nodiscard]] virtual int get_pci_hot_reset_info(vfio_pci_hot_reset_info& info) = 0;
  [[nodiscard]] virtual int pci_hot_reset(vfio_pci_hot_reset& reset) = 0;
  // The group that the device was opened through, which proves to the kernel whose it is; null where it was opened by a
  // node of its own.
  [[nodiscard]] virtual const Group* group() const = 0;
  [[nodiscard]] virtual ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) = 0;
  // As Kernel::mmap(), of the device.
  [[nodiscard]] virtual std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                           std::uint64_t offset) = 0;
  // The kernel that mappings are given back to.
  [[nodiscard]] virtual Kernel& kernel() = 0;
  // Lets the device go; every other request gives EBADF afterwards. The second time does nothing.
  [[nodiscard]] virtual Result<void> close() = 0;
};

}  // namespace postern
