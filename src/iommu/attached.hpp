// SPDX-License-Identifier: Apache-2.0
// Attached: a device in an address space, with its state there.
#pragma once

#include <memory>
#include <postern/dirty_tracker.hpp>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/kvm.hpp>
#include <utility>

#include "host/node.hpp"
#include "iommu/device_log.hpp"

namespace postern {

class Group;

// Created by a backend, which may derive from it to add its own state (a page table); owned by the AddressSpace. Stays
// at its address until it is detached.
struct Attached {
  Attached(HostDevice host_device, NodeFd device_fd, const Group* of_group)
      : host(std::move(host_device)), fd(std::move(device_fd)), group(of_group), log(fd.fd(), host.name) {
    host.fd.reset();  // that of a group is kept by the group
  }
  virtual ~Attached() = default;
  Attached(const Attached&) = delete;
  Attached& operator=(const Attached&) = delete;

  HostDevice host;                           // as sysfs had it when it was attached, without the fd that was given
  NodeFd fd;                                 // the device fd
  const Group* group;                        // the group it was opened through; null: it was opened by its cdev
  std::shared_ptr<const KvmVfioDevice> kvm;  // to which the group was added for it
  DeviceLog log;                             // the pages it writes, if it can log them itself
  DirtySource source = DirtySource::none;    // valid while dirty tracking is on
  bool marks_everything = false;             // its source then reports every page
};

}  // namespace postern
