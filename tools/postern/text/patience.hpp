// SPDX-License-Identifier: Apache-2.0
// Patience: says what is being waited for when the kernel takes long to let go of a device.
#pragma once

#include <condition_variable>
#include <mutex>
#include <postern/host_device.hpp>
#include <thread>

#include "verb.hpp"

namespace postern::tool {

// A VFIO driver is not unbound before everybody has closed the device, and the write to sysfs that asks for it does not
// return before. A second after it is made, this says on stderr who has the device open.
class Patience {
 public:
  // What stands in sysfs of `device` must be from before: the kernel takes the cdev away first, and then waits.
  Patience(const Session& session, HostDevice device);
  ~Patience();
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

 private:
  void watch(const Session& session, const HostDevice& device);

  std::mutex mutex_;
  std::condition_variable over_;
  bool is_over_ = false;
  std::thread thread_;  // the last to be made: it uses the others
};

}  // namespace postern::tool
