// SPDX-License-Identifier: Apache-2.0
// Patience: says what is being waited for when the kernel takes long to let go of a device.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "verb.hpp"

namespace postern::tool {

// A VFIO driver is not unbound before everybody has closed the device, and the write to sysfs that asks for it does not
// return before. A second after it is made, this says on stderr who has the device open.
class Patience {
 public:
  Patience(const Session& session, std::string device);
  ~Patience();
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

 private:
  void watch(const Session& session, const std::string& device);

  std::mutex mutex_;
  std::condition_variable over_;
  bool is_over_ = false;
  std::thread thread_;  // the last to be made: it uses the others
};

}  // namespace postern::tool
