// SPDX-License-Identifier: Apache-2.0
// open_node(): opens a device node of VFIO, or takes the descriptor of it that was given, with errors that name the
// node, its mode and the remedy.
#pragma once

#include <memory>
#include <optional>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <string>

namespace postern {

// A node that a backend needs.
struct Node {
  std::string path;
  std::string sysfs;                 // where the kernel shows it, if it has it
  Remedies remedy;                   // how to make the kernel have it
  std::optional<dev_t> number = {};  // if it is known; else it is read in sysfs
};

// An open node, or what was got by it: opened here, or given by the caller, who may keep it open.
struct NodeFd {
  Fd own = {};
  std::shared_ptr<const Fd> given = {};

  [[nodiscard]] const Fd& fd() const noexcept { return given ? *given : own; }
  [[nodiscard]] int get() const noexcept { return fd().get(); }
  [[nodiscard]] Kernel& kernel() const noexcept { return fd().kernel(); }
  explicit operator bool() const noexcept { return static_cast<bool>(fd()); }
  // Closes its own, and drops the other.
  void reset() noexcept {
    own.reset();
    given.reset();
  }
};

// Opens a node for reading and writing, or takes `given`, if it is not null, after require_node(). `object` is the
// object of errors: "0000:00:01.0".
[[nodiscard]] Result<NodeFd> open_node(Kernel& kernel, const Node& node, const std::string& object,
                                       const std::shared_ptr<const Fd>& given = {});

// The descriptor of HostDevice::fd, or null.
[[nodiscard]] inline std::shared_ptr<const Fd> given_fd(const HostDevice& device) {
  return device.fd ? std::shared_ptr<const Fd>(device.fd, &device.fd->fd()) : nullptr;
}

// Checks, by its device number, that a descriptor is one of this node, without asking anything of the node itself.
// Errors: EBADF (not open), EINVAL (another file, which is named; or of another Kernel), those of sysfs.
[[nodiscard]] Result<void> require_node(Kernel& kernel, const Node& node, const Fd& given, const std::string& object);

// Checks, without opening it, whether this process may open the node. Errors: the same, as far as access(2) shows them,
// which does not include a device cgroup.
[[nodiscard]] Result<void> probe_node(Kernel& kernel, const Node& node, const std::string& object);

}  // namespace postern
