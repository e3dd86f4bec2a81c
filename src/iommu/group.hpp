// SPDX-License-Identifier: Apache-2.0
// Group: an open /dev/vfio/N, for the backends whose devices are reached through their IOMMU group.
#pragma once

#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <string>
#include <vector>

#include "iommu/requirement.hpp"
#include "kernel/kvm_file.hpp"

namespace postern {

// One process at a time can open a group. It is in at most one container, and returns the fds of its devices. The
// destructor removes it from its container, unless somebody else keeps the descriptor.
class Group {
 public:
  // Opens the group of a device, or takes HostDevice::fd. Errors: those of open_node(), EPERM (not viable: every
  // blocker is named), EBUSY (the one that was given is in a container).
  [[nodiscard]] static Result<Group> open(Kernel& kernel, GroupId id, const HostDevice& device);
  Group(Group&&) noexcept = default;
  Group& operator=(Group&&) noexcept = default;

  [[nodiscard]] GroupId id() const noexcept { return id_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] Result<void> set_container(const Fd& container);
  [[nodiscard]] Result<void> unset_container();
  [[nodiscard]] Result<Fd> open_device(const HostDevice& device) const;
  // Checks that HostDevice::fd, if there is one, is a descriptor of this group.
  [[nodiscard]] Result<void> check_given(const HostDevice& device) const;

  // Tells KVM of the group, unless it was told; null: does nothing.
  [[nodiscard]] Result<void> add_to(const std::shared_ptr<const KvmVfioDevice>& kvm);
  // Where the group was added. Erasing one removes it there.
  [[nodiscard]] std::vector<KvmFile>& kvm_files() noexcept { return kvm_files_; }

 private:
  Group(GroupId id, NodeFd fd) noexcept : id_(id), fd_(std::move(fd)) {}

  GroupId id_{};
  NodeFd fd_;
  std::vector<KvmFile> kvm_files_;  // destroyed before the fd is closed
};

// The node of a device's group, which can be opened here.
[[nodiscard]] Node node_of_group(const Lookup& lookup);
[[nodiscard]] bool is_in_group(const Lookup& lookup);
[[nodiscard]] Result<std::string> find_group_node(const Requirement&, Lookup& lookup);
inline constexpr Requirement group_node{.key = "group-node",
                                        .title = {},
                                        .of = Requirement::Of::device,
                                        .node = node_of_group,
                                        .applies = is_in_group,
                                        .find = find_group_node};

}  // namespace postern
