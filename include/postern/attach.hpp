// SPDX-License-Identifier: Apache-2.0
// attach(): brings a device of the host into a container, and gives the Device to drive it with.
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

struct AttachOptions {
  std::string_view backend = "auto";     // see choose_backend(); not looked at when joining
  std::shared_ptr<Container> container;  // join this one; null opens a new one
  ContainerOptions container_options;    // for a new one

  // What opens a virtual function whose physical function is bound to vfio-pci, and what such a physical function is
  // given where it is opened. Without one, that of the HostDevice.
  std::optional<VfToken> vf_token;

  // Containers of the same memory that are there already, to be joined before a new one is opened: the first that takes
  // the device. Into a new one is mapped what the first of them maps, its DMA windows included.
  std::vector<std::shared_ptr<Container>> join;
  std::vector<Error>* refusals = nullptr;  // gets why each of `join` before that one did not take it
};

// The device must be bound to a VFIO driver already (bind_to_driver()). On an error nothing is left open or mapped.
// Errors: those of choose_backend(); ENODEV (bound to the wrong driver, or in no IOMMU group), EPERM (its group is not
// viable: every member in the way is named), EACCES (the node cannot be opened: it is named with its mode; or the
// device wants another VF token), EBUSY (somebody else has it; VFIO_DEVICE_BIND_IOMMUFD says so with EINVAL, too),
// EINVAL or EADDRINUSE (it cannot share this container: what is mapped does not fit it), those of Container::map()
// (what is mapped cannot be mapped in a new one). Where containers were to be joined, causes() has the refusal of each.
// Thread rules: it uses the containers that it is to join, which are for one thread at a time; into new ones several
// threads may attach at once.
[[nodiscard]] POSTERN_API Result<Device> attach(Kernel& kernel, const HostDevice& device,
                                                const AttachOptions& options = {});

}  // namespace postern
