// SPDX-License-Identifier: Apache-2.0
// DeviceOps: the functions of a device's VFIO driver: struct vfio_device_ops.
#pragma once

#include <linux/vfio.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace postern::sim {

struct Variant;

// Functions with a result return that of the system call of their name, as those of File. All except match are called
// while the device is open.
class DeviceOps {
 public:
  DeviceOps() = default;
  DeviceOps(const DeviceOps&) = delete;
  DeviceOps& operator=(const DeviceOps&) = delete;
  virtual ~DeviceOps() = default;

  // Called before each ioctl, read and write (vfio_device_pm_runtime_get, vfio_pci_rw).
  virtual void resume() {}
  // Called on the first open by this process, and on the last close.
  virtual void open_device() = 0;
  virtual void close_device() = 0;
  [[nodiscard]] virtual int ioctl(unsigned long request, void* argument) = 0;
  [[nodiscard]] virtual ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                           std::uint64_t offset) = 0;
  // File::place_in_bars
  [[nodiscard]] virtual std::int64_t place_in_bars(std::uint64_t /*offset*/) const { return -ENODEV; }
  // Whether its mapped memory is accessible now (File::answers).
  [[nodiscard]] virtual bool answers() const = 0;
  // The kernel requests the device.
  virtual void request() = 0;
  // Whether this text names the device in its group: 1, 0, or a negated errno.
  [[nodiscard]] virtual int match(std::string_view text) const = 0;
  // A VFIO_DEVICE_FEATURE that only the driver knows; `data` follows the header, and is not checked yet.
  [[nodiscard]] virtual int device_feature(const vfio_device_feature& /*feature*/, void* /*data*/) { return -ENOTTY; }
  // Its mig_ops and log_ops (struct vfio_device). Null: it has neither.
  [[nodiscard]] virtual Variant* variant() { return nullptr; }
};

// vfio_check_feature: 1 if the feature is to be read or set, else the result. The data after the header has at least
// `least` bytes.
[[nodiscard]] inline int check_feature(const vfio_device_feature& feature, std::uint32_t supported, std::size_t least) {
  const std::uint32_t action = feature.flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET);
  if ((action & ~supported) != 0) return -EINVAL;
  if ((feature.flags & VFIO_DEVICE_FEATURE_PROBE) != 0) return 0;
  return action != 0 && feature.argsz - sizeof feature >= least ? 1 : -EINVAL;
}

}  // namespace postern::sim
