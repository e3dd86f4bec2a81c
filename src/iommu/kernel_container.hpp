// SPDX-License-Identifier: Apache-2.0
// KernelContainer: an open /dev/vfio/vfio, the IOMMU groups in it, and which devices of them are attached. For the
// backends that reach devices through their group.
#pragma once

#include <functional>
#include <list>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "iommu/group.hpp"

namespace postern {

class KernelContainer {
 public:
  // The kernel gives a container its IOMMU with the first group, and takes it away with the last
  // (vfio_group_detach_container, Linux 3.6): these run where that happens. On an error of set_up the group leaves
  // again; tear_down runs while the group is still there, and its last device is closed.
  struct Hooks {
    std::function<Result<void>(const HostDevice& device)> set_up;
    std::function<void()> tear_down;
  };

  // One of the ways in which the kernel knows an IOMMU: its own number of it, and postern's.
  struct Extension {
    std::uint32_t version;
    unsigned long number;
    std::string_view symbol;
  };
  // What a backend wants of the kernel.
  struct Interface {
    std::string_view backend;
    std::string_view module;                // the kernel module that brings it
    std::span<const Extension> extensions;  // newest first
  };

  // Opens /dev/vfio/vfio and finds which of the extensions the kernel has: the one of that version, or for 0 the first.
  struct Opened {
    Fd fd;
    Extension extension;
  };
  [[nodiscard]] static Result<Opened> open(Kernel& kernel, const Interface& interface, std::uint32_t version);
  // Whether it could be opened here: by this device or, without one, for any.
  [[nodiscard]] static Result<void> probe(Kernel& kernel, const Interface& interface, const HostDevice* device);

  KernelContainer(Fd fd, Hooks hooks) : fd_(std::move(fd)), hooks_(std::move(hooks)) {}

  [[nodiscard]] const Fd& fd() const noexcept { return fd_; }
  [[nodiscard]] bool has_extension(unsigned long number) const;
  [[nodiscard]] bool empty() const noexcept { return groups_.empty(); }
  [[nodiscard]] bool has_group_of(const HostDevice& device) const;
  [[nodiscard]] std::string groups_text() const;
  void close() { fd_.reset(); }

  // The device's fd; its group is in the container from then on. On an error everything is as it was.
  [[nodiscard]] Result<Fd> attach(const HostDevice& device);
  // Closes the device; its group leaves with its last device.
  [[nodiscard]] Result<void> detach(const std::string& device, Fd fd);

 private:
  struct Member {
    std::string device;
    Group* group;
  };
  [[nodiscard]] Result<Group*> join(const HostDevice& device, GroupId id);
  [[nodiscard]] Result<void> leave(Group& group);

  Fd fd_;
  Hooks hooks_;
  std::list<Group> groups_;  // of the attached devices, each once; a list, since members point into it
  std::vector<Member> members_;
};

}  // namespace postern
