// SPDX-License-Identifier: Apache-2.0
// DeviceLog: a device that logs by itself which pages it writes (VFIO_DEVICE_FEATURE_DMA_LOGGING_*, Linux 6.1).
#pragma once

#include <postern/iova.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>
#include <vector>

#include "iommu/dirty_log.hpp"

namespace postern {

class DeviceLog {
 public:
  // The fd stays its owner's.
  DeviceLog(Kernel& kernel, int fd, std::string device) : kernel_(&kernel), fd_(fd), device_(std::move(device)) {}

  [[nodiscard]] bool available() const;
  // The ranges are ordered and apart from each other. A device that cannot log so many may log what lies between, too.
  [[nodiscard]] Result<void> start(const std::vector<IovaRange>& ranges, std::uint64_t page_size);
  // After an error it may be tried again; start() does so first.
  [[nodiscard]] Result<void> stop();
  // Forgets what it tells. Outside of what is logged every page counts as written.
  [[nodiscard]] Result<void> collect(const DirtyRequest& request);

 private:
  [[nodiscard]] Result<void> report(const DirtyRequest& request, IovaRange part);

  Kernel* kernel_;
  int fd_;
  std::string device_;
  std::vector<IovaRange> logged_;
};

}  // namespace postern
