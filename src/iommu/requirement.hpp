// SPDX-License-Identifier: Apache-2.0
// Requirement: one thing that a backend needs of the host or of a device, how it is looked up, and, in the error of
// that, what to do where it is missing. Each backend has one list of them: probe(), attach() and requirements() read
// it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <postern/backend.hpp>
#include <postern/fd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "host/node.hpp"

namespace postern {

// What looking up a backend's requirements has opened and found, for BackendOps::open() to go on with.
struct Probed {
  NodeFd node = {};           // of the interface; empty: none had to be opened
  std::uint32_t version = 0;  // the newest that the kernel has; 0: it was not asked
};

// For whom requirements are looked up, and what came of those before.
struct Lookup {
  Kernel& kernel;
  std::string_view backend;
  const HostDevice* device;           // null: for any
  std::shared_ptr<const Fd> fd = {};  // ContainerOptions::fd
  // Device nodes are opened, and closed again, rather than asked for by access(2), which is blind to a device cgroup.
  // Not in an attach, which opens them next.
  bool opens_device_nodes = false;
  Probed probed = {};

  // What errors are about.
  [[nodiscard]] std::string object() const;
};

struct Requirement {
  // Of what it is asked: always of the host; of the device, if there is one; of the host where there is none.
  enum class Of : std::uint8_t { host, device, any_device };

  std::string_view key;    // as RequirementState::key
  std::string_view title;  // as RequirementState::title; empty: its node's path
  Of of = Of::host;
  std::string_view module = {};              // the kernel module that it is about, if `find` wants to know
  Node (*node)(const Lookup&) = nullptr;     // if it is a node
  bool (*applies)(const Lookup&) = nullptr;  // false: something that is missing before it leaves nothing to look up
  Result<std::string> (*find)(const Requirement&, Lookup&);  // as RequirementState::found
};

// Looks up all that a backend needs, until something is missing: the error is that one's. A descriptor that was given
// for the device is looked at first, so that nothing is opened for a backend that it is not for. `fd` is
// ContainerOptions::fd.
[[nodiscard]] Result<Probed> look_up(Kernel& kernel, const Backend& backend, const HostDevice* device,
                                     const std::shared_ptr<const Fd>& fd = {});

// Looks up those of the device among `requirements`, as an attach does to a container that is there already.
[[nodiscard]] Result<void> require_of_device(std::span<const Requirement> requirements, Kernel& kernel,
                                             const HostDevice& device);

// The same error; but where something is missing that kernels for this host's processor do not have, it says so. If the
// processor is unknown, it has no remedy, and says why.
[[nodiscard]] Error with_processor(Kernel& kernel, std::string_view backend, const Error& error);

// A node of the device that is not opened for keeps: opened and closed, or asked for by access(2). One that somebody
// else has open is one that can be. If a descriptor was given, it is that which is looked at.
[[nodiscard]] Result<void> look_up_node(const Node& node, const Lookup& lookup);

[[nodiscard]] Result<std::string> find_iommu(const Requirement&, Lookup& lookup);
[[nodiscard]] Result<std::string> find_group(const Requirement&, Lookup& lookup);
[[nodiscard]] Result<std::string> find_driver(const Requirement&, Lookup& lookup);
[[nodiscard]] Result<std::string> find_isolation(const Requirement& requirement, Lookup& lookup);

// What every backend needs.
inline constexpr Requirement any_iommu{
    .key = "iommu", .title = "IOMMU", .of = Requirement::Of::any_device, .find = find_iommu};
inline constexpr Requirement in_group{
    .key = "iommu-group", .title = "IOMMU group", .of = Requirement::Of::device, .find = find_group};
inline constexpr Requirement vfio_driver{
    .key = "driver", .title = "driver", .of = Requirement::Of::device, .find = find_driver};

// What makes a device one that VFIO has: asked of each that joins a container, too, for which nothing is looked up.
inline constexpr std::array<Requirement, 2> of_vfio = {in_group, vfio_driver};

// What those need whose kernel module asks for it.
[[nodiscard]] constexpr Requirement isolation_for(std::string_view module) {
  return {.key = "interrupt-isolation", .title = "interrupt isolation", .module = module, .find = find_isolation};
}

}  // namespace postern
