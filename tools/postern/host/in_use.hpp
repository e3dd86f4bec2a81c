// SPDX-License-Identifier: Apache-2.0
// InUse: what this host does with a device. doctor, bind and reset all ask here.
#pragma once

#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>
#include <vector>

#include "text/errors.hpp"
#include "verb.hpp"

namespace postern::tool {

struct InUse {
  struct Use {
    std::string what;  // "nvme0n1p1 is mounted on /home"
    std::string loss;  // what goes when the device is taken all the same: "what is mounted on /home"
  };
  std::vector<Use> uses;
  // What could not be found out, and why: "nvme0n1: open /dev/nvme0n1: Permission denied". Unknown is never unused.
  std::vector<std::string> unknown;

  [[nodiscard]] std::string uses_text() const;     // "A, B and C"; empty where there are none
  [[nodiscard]] std::string unknown_text() const;  // the same
  [[nodiscard]] std::string losses_text() const;   // the same
};

// Disks, network interfaces, virtual functions, the boot display, and processes that hold the nodes of the device's
// driver. Who has the device open through VFIO is not looked at: the kernel refuses a second one by itself. Opens the
// disks for a moment, to ask for them exclusively; changes nothing.
[[nodiscard]] InUse find_uses(Kernel& kernel, const HostDevice& device);

// Errors: EBUSY (it is used, or whether it is cannot be told; the reason names each). `verb` is the operation in it.
[[nodiscard]] Result<void> require_unused(const InUse& in_use, const HostDevice& device, const std::string& verb);

// What a verb does before it takes a device from this host: refuses as require_unused() does, unless --force was given;
// else notes on standard error what is lost, and what cannot be told.
[[nodiscard]] Result<InUse> take_from_host(const Session& session, const HostDevice& device, const std::string& verb,
                                           bool force);

// "lost" and "cannot_tell" of JSON; null where there is nothing to say.
void add_losses(Json& json, const InUse& in_use);

// The parts, each of which adds what it finds.
void find_disk_uses(Kernel& kernel, const HostDevice& device, InUse& found);
void find_network_uses(Kernel& kernel, const HostDevice& device, InUse& found);

// Whether a link of sysfs leads to something that is part of the device, or behind it.
[[nodiscard]] bool leads_to(Kernel& kernel, const std::string& link, const HostDevice& device);
// The first line of a file of sysfs; empty where it cannot be read.
[[nodiscard]] std::string attribute(Kernel& kernel, const std::string& path);

}  // namespace postern::tool
