// SPDX-License-Identifier: Apache-2.0
// DeviceLog: a device's own log of the pages it writes (VFIO_DEVICE_FEATURE_DMA_LOGGING_*, Linux 6.1).
#pragma once

#include <postern/fd.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <string>
#include <vector>

#include "iommu/dirty_log.hpp"

namespace postern {

class DeviceLog {
 public:
  // The device's fd, and its name for errors. Both must outlive this object.
  DeviceLog(const Fd& fd, const std::string& device) noexcept : fd_(&fd), device_(&device) {}

  [[nodiscard]] bool available() const;
  // The ranges are sorted and do not touch. If there are too many for the device, it also logs some gaps between them.
  [[nodiscard]] Result<void> start(const std::vector<IovaRange>& ranges, std::uint64_t page_size);
  // May be called again after an error; start() does so first.
  [[nodiscard]] Result<void> stop();
  // Clears what it reports. Pages outside of the logged ranges are reported dirty.
  [[nodiscard]] Result<void> collect(const DirtyRequest& request);

 private:
  [[nodiscard]] Result<void> report(const DirtyRequest& request, IovaRange part);

  const Fd* fd_;
  const std::string* device_;
  std::vector<IovaRange> logged_;
};

}  // namespace postern
