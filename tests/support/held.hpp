// SPDX-License-Identifier: Apache-2.0
// Held: a snapshot of the resources of this process and in the kernel, to find what a test leaves behind.
#pragma once

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern::test {

// The constructor takes the snapshot; compare two by ==.
struct Held {
  ResourceUse resources = ResourceUse::now();
  int files = 0;
  int objects = 0;
  std::int64_t mapped = 0;
  std::string driver;  // of the second device
  std::string driver_override;

  Held(const WatchedKernel& kernel, const HostDevice& second)
      : files(kernel.open_files()), objects(kernel.objects()), mapped(kernel.mapped()) {
    (void)test::kernel().read_link(second.sysfs_path + "/driver", driver);
    (void)test::kernel().read_file(second.sysfs_path + "/driver_override", driver_override);
  }
  friend bool operator==(const Held&, const Held&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Held& held) {
    return out << held.files << " files, " << held.objects << " objects, " << held.mapped << " bytes of address space, "
               << held.resources.files.size() << " fds, " << held.resources.locked << " bytes locked and "
               << held.resources.pinned << " pinned, driver " << held.driver << ", override " << held.driver_override;
  }
};

}  // namespace postern::test
