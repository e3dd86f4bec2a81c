// SPDX-License-Identifier: Apache-2.0
// device_fd_of(): the device's own fd as the file of its regions.
#include <fcntl.h>

#include <cerrno>
#include <postern-vfio-user/server.hpp>

namespace postern::vfio_user {

Result<RegionFile> device_fd_of(const Device& device, const Region& region) {
  const int copy = ::fcntl(device.fd(), F_DUPFD_CLOEXEC, 0);  // that of a simulated device is none of this process
  if (copy < 0) return failure_from(-errno, "fcntl", device.name());
  return RegionFile{.fd = Fd(device.container()->kernel(), copy), .offset = region.offset};
}

}  // namespace postern::vfio_user
