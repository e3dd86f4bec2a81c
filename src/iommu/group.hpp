// SPDX-License-Identifier: Apache-2.0
// Group: an open /dev/vfio/N, for the backends whose devices are reached through their IOMMU group.
#pragma once

#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

// A group is open to one process at a time, belongs to at most one container, and gives the fds of its devices. Leaves
// its container when it goes.
class Group {
 public:
  // Errors: those of open_node(), EPERM (not viable: every member in the way is named).
  [[nodiscard]] static Result<Group> open(Kernel& kernel, GroupId id, const std::string& device);
  Group(Group&&) noexcept = default;
  Group& operator=(Group&&) noexcept = default;

  [[nodiscard]] GroupId id() const noexcept { return id_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] Result<void> set_container(const Fd& container);
  [[nodiscard]] Result<void> unset_container();
  [[nodiscard]] Result<Fd> open_device(const HostDevice& device) const;

  int users = 0;  // devices of this group that are attached now: its container's book-keeping

 private:
  Group(GroupId id, Fd fd) noexcept : id_(id), fd_(std::move(fd)) {}

  GroupId id_{};
  Fd fd_;
};

// Whether a device's group can be opened here: the device is in a group, has a VFIO driver, and its node is accessible.
[[nodiscard]] Result<void> probe_group(Kernel& kernel, const HostDevice& device);

}  // namespace postern
