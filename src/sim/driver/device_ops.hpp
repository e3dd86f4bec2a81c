// SPDX-License-Identifier: Apache-2.0
// DeviceOps: what a VFIO driver does for a device of its own: struct vfio_device_ops.
#pragma once

#include <linux/vfio.h>
#include <sys/types.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace postern::sim {

struct Variant;

// Each function that gives something gives what the system call of its name does, as those of File. They are called
// while the device is open, but for match.
class DeviceOps {
 public:
  DeviceOps() = default;
  DeviceOps(const DeviceOps&) = delete;
  DeviceOps& operator=(const DeviceOps&) = delete;
  virtual ~DeviceOps() = default;

  // It was opened by this process, or closed for the last time.
  virtual void open_device() = 0;
  virtual void close_device() = 0;
  [[nodiscard]] virtual int ioctl(unsigned long request, void* argument) = 0;
  [[nodiscard]] virtual ssize_t read(void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual ssize_t write(const void* buffer, std::size_t length, std::uint64_t offset) = 0;
  [[nodiscard]] virtual std::intptr_t mmap(void* address, std::size_t length, int protection, int flags,
                                           std::uint64_t offset) = 0;
  // Whether memory that is mapped of it can be reached now (File::answers).
  [[nodiscard]] virtual bool answers() const = 0;
  // The kernel wants the device back.
  virtual void request() = 0;
  // Whether a group's device is asked for by this text: 1, 0, or a negated errno.
  [[nodiscard]] virtual int match(std::string_view text) const = 0;
  // A VFIO_DEVICE_FEATURE that the driver alone knows; `data` stands behind the header, and was not looked at yet.
  [[nodiscard]] virtual int device_feature(const vfio_device_feature& /*feature*/, void* /*data*/) { return -ENOTTY; }
  // What it can beyond that: mig_ops and log_ops of struct vfio_device. Null: it has neither.
  [[nodiscard]] virtual Variant* variant() { return nullptr; }
};

// vfio_check_feature: 1 where the feature is to be got or set, else the answer. `least` bytes stand behind the header.
[[nodiscard]] inline int check_feature(const vfio_device_feature& feature, std::uint32_t supported, std::size_t least) {
  const std::uint32_t action = feature.flags & (VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_SET);
  if ((action & ~supported) != 0) return -EINVAL;
  if ((feature.flags & VFIO_DEVICE_FEATURE_PROBE) != 0) return 0;
  return action != 0 && feature.argsz - sizeof feature >= least ? 1 : -EINVAL;
}

}  // namespace postern::sim
