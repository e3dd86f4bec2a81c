// SPDX-License-Identifier: Apache-2.0
// attach(): attaches a host device to a container and returns the Device that drives it.
#pragma once

#include <memory>
#include <optional>
#include <postern/backend.hpp>
#include <postern/container.hpp>
#include <postern/device.hpp>
#include <postern/export.hpp>
#include <postern/host_device.hpp>
#include <postern/result.hpp>
#include <string_view>
#include <vector>

namespace postern {

/// Which container attach() uses, and how it opens the device.
struct AttachOptions {
  /// Backend for a new container, see choose_backend(). Other than "auto", it also restricts `join` to containers of
  /// that backend. Ignored if `container` is set. "auto" also tries the next backend if a node cannot be opened that
  /// the probe did not open (a cdev that a device cgroup forbids).
  std::string_view backend = "auto";
  std::shared_ptr<Container> container;  ///< container to join; null: open a new one, or join one of `join`
  ContainerOptions container_options;    ///< for a new container

  /// VF token: required to open a virtual function whose physical function is bound to vfio-pci; set on such a physical
  /// function when it is opened. HostDevice::vf_token takes precedence.
  std::optional<VfToken> vf_token;

  /// Existing containers that map the same memory. They are tried in order, and the first that accepts the device is
  /// used. If none does, a new container is opened, and the mappings and DMA windows of the first of them are
  /// replicated into it.
  std::vector<std::shared_ptr<Container>> join;
  /// If not null, receives one error for each container of `join` that refused the device.
  std::vector<Error>* refusals = nullptr;
};

/// Attaches a device that is already bound to a VFIO driver (see bind_to_driver()). On an error, nothing is left open
/// or mapped. Errors: those of choose_backend(); ENODEV (bound to the wrong driver, or in no IOMMU group), EPERM (the
/// group is not viable: all blocking members are named; the group is in use by another process; or the device's
/// interrupts cannot be isolated), EACCES (the device node cannot be opened: the error gives its path and mode; or the
/// device requires another VF token), EBUSY (the device is in use; VFIO_DEVICE_BIND_IOMMUFD reports this as EINVAL,
/// too), ESTALE (the cdev belongs to another device), EINVAL or EADDRINUSE (the device cannot share this container: its
/// IOMMU does not support the existing mappings; on POWER also EPERM or EBUSY), those of Container::map() (the mappings
/// cannot be replicated into a new container). If containers of `join` refused the device, causes() has the error of
/// each.
/// Thread safety: uses the containers to be joined, which one thread at a time may use. Several threads may attach to
/// new containers concurrently.
[[nodiscard]] POSTERN_API Result<Device> attach(Kernel& kernel, const HostDevice& device,
                                                const AttachOptions& options = {});

}  // namespace postern
