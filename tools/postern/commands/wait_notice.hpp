// SPDX-License-Identifier: Apache-2.0
// WaitNotice: prints what the tool is waiting for if the kernel takes long to release a device.
#pragma once

#include <condition_variable>
#include <mutex>
#include <postern/host_device.hpp>
#include <thread>

#include "command.hpp"

namespace postern::tool {

// The kernel unbinds a VFIO driver only when every process has closed the device, and the write to sysfs returns only
// then. One second after its construction, this prints on stderr which processes have the device open.
class WaitNotice {
 public:
  // `device` must have been read before the change: the kernel removes the cdev first, and then waits.
  WaitNotice(const Session& session, HostDevice device);
  ~WaitNotice();
  WaitNotice(const WaitNotice&) = delete;
  WaitNotice& operator=(const WaitNotice&) = delete;

 private:
  void watch(const Session& session, const HostDevice& device);

  std::mutex mutex_;
  std::condition_variable over_;
  bool is_over_ = false;
  std::thread thread_;  // last: it uses the others
};

}  // namespace postern::tool
