// SPDX-License-Identifier: Apache-2.0
// attach(): attaches a device to an existing or a new container; move_device(): moves it to another.
#include <postern/attach.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <postern/pci_function.hpp>
#include <span>
#include <vector>

#include "base/on_throw.hpp"
#include "base/remedy.hpp"
#include "core/causes.hpp"
#include "core/choice.hpp"
#include "core/replay.hpp"
#include "device/kernel_device_io.hpp"
#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"

namespace postern {
namespace {

Result<std::vector<Device>> attach_to(const std::shared_ptr<Container>& container, std::span<const HostDevice> hosts,
                                      const AttachOptions& options) {
  auto attachments = POSTERN_TRY(Attachment::make(container, hosts, options.kvm));
  std::vector<Device> devices;
  devices.reserve(attachments.size());
  for (Attachment& attachment : attachments) {
    devices.push_back(POSTERN_TRY(Device::open(std::make_unique<KernelDeviceIo>(std::move(attachment)), container)));
  }
  return devices;
}

Result<Device> attach_to(const std::shared_ptr<Container>& container, const HostDevice& host,
                         const AttachOptions& options) {
  auto devices = POSTERN_TRY(attach_to(container, std::span(&host, 1), options));
  return std::move(devices.front());
}

// Whether nothing was done because a node could not be opened. A probe only checks some nodes; a device cgroup that
// denies access, or a missing device behind the node, shows when they are opened.
bool found_a_node_closed(const Error& error) {
  constexpr std::array codes = {EPERM, EACCES, ENOENT, ENXIO, ENODEV};
  return error.operation() == "open" && std::find(codes.begin(), codes.end(), error.code()) != codes.end();
}

Result<Device> attach_with(Choice choice, Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  auto opened =
      POSTERN_TRY(AddressSpace::open(std::move(choice.probed), kernel, *choice.backend, options.container_options));
  return attach_to(opened, device, options);
}

Result<Device> attach_to_new(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  bool goes_on = false;
  for (std::vector<Error> refusals;;) {
    auto choice =
        POSTERN_TRY(choose(kernel, options.backend, device, options.container_options.fd, std::move(refusals)));
    refusals = std::move(choice.refusals);
    auto attached = attach_with(std::move(choice), kernel, device, options);
    if (!attached && options.backend == "auto" && found_a_node_closed(attached.error())) {
      refusals.push_back(std::move(attached).error());
      goes_on = true;
      continue;
    }
    if (!attached) return goes_on ? failure_with(std::move(refusals), attached.error()) : failure_of(attached);
    if (options.join.empty()) return attached;
    // After a device has joined: only then it is known what can be mapped.
    POSTERN_TRY(replay(*options.join.front(), *attached->container()));
    return attached;
  }
}

// Whether the options agree with each other, and all containers are of this kernel.
Result<void> check_options(Kernel& kernel, const std::string& object, const AttachOptions& options) {
  const auto refuse = [&](std::string reason) {
    return refusal({.result = -EINVAL, .object = object, .reason = std::move(reason)});
  };
  constexpr const char* other_kernel = "the container was opened on another Kernel than the one given";
  if (const auto& container = options.container) {
    if (&container->kernel() != &kernel) return refuse(other_kernel);
    if (options.backend != "auto" && options.backend != container->backend()) {
      return refuse(fmt::format("the backend {} was requested, with a container of the backend {}", options.backend,
                                container->backend()));
    }
  }
  for (const auto& container : options.join) {
    if (!container) return refuse("a container to join is null");
    if (&container->kernel() != &kernel) return refuse(other_kernel);
  }
  return {};
}

// Why a device that was not bound to VFIO when it was read cannot be attached: because there is none, or because it has
// been bound since. Otherwise the error is as it was.
Error explained(Kernel& kernel, const HostDevice& device, Error error) {
  if (device.is_vfio || (error.kind() != ErrorKind::not_bound && error.kind() != ErrorKind::no_iommu)) return error;
  const std::string object = fmt::format("attach {}", device.name.empty() ? "a device" : device.name);
  if (device.name.empty() || device.bus.empty()) {
    return Error({.code = ENOENT,
                  .object = object,
                  .reason = "the HostDevice has no name or no bus: it was not read from the host",
                  .remedy = RemedyCode::list_devices});
  }
  const auto now = find_host_device(kernel, device.bus, device.name);
  if (!now && now.error().code() == ENOENT) {
    return Error({.code = ENOENT,
                  .object = object,
                  .reason = fmt::format("this host has no {} device of this name", device.bus),
                  .remedy = RemedyCode::list_devices});
  }
  if (!now || !now->is_vfio) return error;
  return Error({.code = ESTALE,
                .object = object,
                .reason = fmt::format("it is bound to {} now, and was not when this HostDevice was read",
                                      now->driver.value_or("a VFIO driver")),
                .remedy = remedy<RemedyCode::read_device_again>(device.name)});
}

// Attaches to an existing container; null if none accepts the device.
std::optional<Device> join(const HostDevice& device, const AttachOptions& options, std::vector<Error>& refusals) {
  for (const auto& container : options.join) {
    if (options.backend != "auto" && options.backend != container->backend()) {
      refusals.push_back(Error({.code = EINVAL,
                                .object = fmt::format("attach {} to container {}", device.name, container->backend()),
                                .reason = fmt::format("the backend {} was requested", options.backend)}));
      continue;
    }
    auto taken = attach_to(container, device, options);
    if (taken) return std::move(*taken);
    refusals.push_back(std::move(taken).error());
  }
  return std::nullopt;
}

Result<Device> attach_by(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  if (options.container) return attach_to(options.container, device, options);
  std::vector<Error> refusals;
  auto joined = join(device, options, refusals);
  auto attached = joined ? Result<Device>(std::move(*joined)) : attach_to_new(kernel, device, options);
  if (options.refusals != nullptr) *options.refusals = refusals;
  if (attached || refusals.empty()) return attached;
  return failure_with(std::move(refusals), attached.error());
}

Result<std::vector<Device>> attach_all_by(Kernel& kernel, std::span<const HostDevice> hosts,
                                          const AttachOptions& options) {
  if (options.container) return attach_to(options.container, hosts, options);
  auto choice = POSTERN_TRY(choose(kernel, options.backend, hosts.front(), options.container_options.fd));
  auto opened =
      POSTERN_TRY(AddressSpace::open(std::move(choice.probed), kernel, *choice.backend, options.container_options));
  return attach_to(opened, hosts, options);
}

}  // namespace

Result<Device> attach(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  if (options.vf_token && !device.vf_token) {
    HostDevice with_token = device;
    with_token.vf_token = options.vf_token;
    return attach(kernel, with_token, options);
  }
  POSTERN_TRY(check_options(kernel, fmt::format("attach {}", device.name), options));
  auto attached = attach_by(kernel, device, options);
  if (attached) return attached;
  return failure(explained(kernel, device, std::move(attached).error()));
}

Result<std::vector<Device>> attach_all(Kernel& kernel, std::span<const HostDevice> devices,
                                       const AttachOptions& options) {
  std::vector<HostDevice> hosts(devices.begin(), devices.end());
  for (HostDevice& host : hosts) {
    if (!host.vf_token) host.vf_token = options.vf_token;
  }
  POSTERN_TRY(check_options(kernel, fmt::format("attach {} devices", hosts.size()), options));
  if (hosts.empty()) return std::vector<Device>();
  auto attached = attach_all_by(kernel, hosts, options);
  if (attached) return attached;
  // Explains the error by the first device that is not bound to VFIO.
  const auto unbound = std::find_if(hosts.begin(), hosts.end(), [](const HostDevice& host) { return !host.is_vfio; });
  if (unbound == hosts.end()) return attached;
  return failure(explained(kernel, *unbound, std::move(attached).error()));
}

Result<void> move_device(Device& device, const std::shared_ptr<Container>& container) {
  if (!device.io_) return device.closed();
  if (!container) {
    return refusal(
        {.result = -EINVAL, .object = fmt::format("move {}", device.name()), .reason = "the container is null"});
  }
  const auto follow = [&] {
    if (auto holder = device.io_->container()) device.container_ = std::move(holder);
  };
  const OnThrow on_throw(follow);
  auto moved = device.io_->move_to(container);
  follow();
  return moved;
}

Result<PciDevice> attach_pci(Kernel& kernel, const PciFunction& function, const AttachOptions& options) {
  return PciDevice::open(POSTERN_TRY(attach(kernel, function.host, options)));
}

Result<PciDevice> attach_pci(Kernel& kernel, PciAddress address, const AttachOptions& options) {
  return attach_pci(kernel, POSTERN_TRY(find_pci_function(kernel, address)), options);
}

Result<PciDevice> attach_pci(Kernel& kernel, std::string_view address, const AttachOptions& options) {
  return attach_pci(kernel, POSTERN_TRY(find_pci_function(kernel, address)), options);
}

}  // namespace postern
