// SPDX-License-Identifier: Apache-2.0
// InUse: how this host uses a device. doctor and all commands that take a device from the host check this.
#pragma once

#include <postern/host_device.hpp>
#include <postern/kernel.hpp>
#include <postern/result.hpp>
#include <string>
#include <vector>

#include "command.hpp"
#include "text/errors.hpp"

namespace postern::tool {

struct InUse {
  struct Use {
    std::string what;  // "nvme0n1p1 is mounted on /home"
    std::string loss;  // what is lost if the device is taken anyway: "the file system on /home"
  };
  std::vector<Use> uses;
  // What could not be determined, and why: "nvme0n1: open /dev/nvme0n1: Permission denied". Unknown never counts as
  // unused.
  std::vector<std::string> unknown;

  [[nodiscard]] std::string uses_text() const;     // "A, B and C"; empty if there are none
  [[nodiscard]] std::string unknown_text() const;  // the same
  [[nodiscard]] std::string losses_text() const;   // the same
};

// Finds disks, network interfaces, virtual functions, the boot display, and processes that have nodes of the device's
// driver open. Ignores processes that have the device open through VFIO: the kernel refuses a second one itself. Opens
// each disk exclusively for a moment; changes nothing.
[[nodiscard]] InUse find_uses(Kernel& kernel, const HostDevice& device);

// Errors: EBUSY (it is used, or that is unknown; the reason lists everything found). `command` is the error's
// operation.
[[nodiscard]] Result<void> require_unused(const InUse& in_use, const HostDevice& device, const std::string& command);

// Called before a command takes a device from this host. Fails as require_unused() does; with --force it succeeds, and
// notes on standard error what is lost and what is unknown.
[[nodiscard]] Result<InUse> take_from_host(const Session& session, const HostDevice& device, const std::string& command,
                                           bool force);

// Adds "lost" and "cannot_tell" to JSON; null if empty.
void add_losses(Json& json, const InUse& in_use);

// The parts of find_uses(). Each adds what it finds.
void find_disk_uses(Kernel& kernel, const HostDevice& device, InUse& found);
void find_network_uses(Kernel& kernel, const HostDevice& device, InUse& found);

}  // namespace postern::tool
