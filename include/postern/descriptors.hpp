// SPDX-License-Identifier: Apache-2.0
// GivenFd, send_fds() and receive_fds(): descriptors of nodes that one process opens, and another uses.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <postern/export.hpp>
#include <postern/fd.hpp>
#include <postern/result.hpp>
#include <span>
#include <utility>
#include <vector>

namespace postern {

/// A descriptor of a device's cdev or of its IOMMU group that was opened elsewhere, for HostDevice::fd. Owns it. Shared
/// by all copies of that HostDevice, and by the Device while it is attached: the device is in use until the last of
/// them is gone. A group's descriptor serves all devices of the group, a cdev's one at a time. Thread safety: as int;
/// attaching with one descriptor is safe from several threads.
class GivenFd {
 public:
  /// Takes over the descriptor. `iommufd_id` is the id that VFIO_DEVICE_BIND_IOMMUFD returned, if it is a cdev that is
  /// bound already, to the iommufd in ContainerOptions::fd; 0 if it is not: attach() binds it.
  explicit GivenFd(Fd fd, std::uint32_t iommufd_id = 0) noexcept : fd_(std::move(fd)), iommufd_id_(iommufd_id) {}

  [[nodiscard]] const Fd& fd() const noexcept { return fd_; }  ///< the descriptor

 private:
  friend class GivenFdUse;  // the library's

  Fd fd_;
  std::uint32_t iommufd_id_;
  bool was_bound_here_ = false;
  std::weak_ptr<const void> iommufd_;
  std::atomic<bool> in_use_ = false;
};

/// Sends copies of descriptors, in order, with one byte of data, over a connected AF_UNIX socket. The other process
/// gets all that can be done with them: VFIO has no read-only descriptors (docs/descriptors.md). Blocks as the socket
/// does. Kernel: sendmsg(2) with SCM_RIGHTS and MSG_NOSIGNAL; descriptors of simulated kernels cannot be sent. Errors:
/// EINVAL (none, or more than 253), EBADF (one is not open), those of sendmsg(2). Thread-safe.
[[nodiscard]] POSTERN_API Result<void> send_fds(int socket, std::span<const int> fds);

/// Receives exactly `count` descriptors from one send_fds(), in its order, with FD_CLOEXEC. On an error none stays
/// open. `kernel` is the Kernel that they will be used with. Blocks as the socket does. Errors: EINVAL (`count` is 0 or
/// more than 253), EPROTO (the message has another number of descriptors, or another length), ECONNRESET (the other end
/// was closed), EMFILE (this process may not open as many), those of recvmsg(2). Thread-safe.
[[nodiscard]] POSTERN_API Result<std::vector<Fd>> receive_fds(Kernel& kernel, int socket, std::size_t count);

}  // namespace postern
