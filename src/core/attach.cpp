// SPDX-License-Identifier: Apache-2.0
// attach(): a container that takes the device, there already or new, and the Device to drive it with.
#include <postern/attach.hpp>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/choice.hpp"
#include "core/replay.hpp"
#include "device/kernel_device_io.hpp"

namespace postern {
namespace {

Result<Device> attach_to(std::shared_ptr<Container> container, const HostDevice& device) {
  auto attachment = Attachment::make(container, device);
  if (!attachment) return failure_of(attachment);
  return Device::open(std::make_unique<KernelDeviceIo>(std::move(*attachment)), std::move(container));
}

// The error, with more causes before its own.
tl::unexpected<Error> failure_with(std::vector<Error> causes, const Error& error) {
  causes.insert(causes.end(), error.causes().begin(), error.causes().end());
  return failure({.code = error.code(),
                  .operation = error.operation(),
                  .object = error.object(),
                  .reason = error.reason(),
                  .remedy = error.remedy(),
                  .causes = std::move(causes)});
}

// Whether nothing was done, because a node could not be opened. A probe looks at some alone, and what forbids them (a
// device cgroup) or is missing behind them shows when they are opened.
bool found_a_node_closed(const Error& error) {
  constexpr std::array codes = {EPERM, EACCES, ENOENT, ENXIO, ENODEV};
  return error.operation() == "open" && std::find(codes.begin(), codes.end(), error.code()) != codes.end();
}

Result<Device> attach_with(Choice choice, Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  auto opened = choice.backend->open_at(std::move(choice.node), kernel, options.container_options);
  if (!opened) return failure_of(opened);
  return attach_to(std::move(*opened), device);
}

Result<Device> attach_to_new(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  bool goes_on = false;
  for (std::vector<Error> refusals;;) {
    auto choice = choose(kernel, options.backend, device, std::move(refusals));
    if (!choice) return failure_of(choice);
    refusals = std::move(choice->refusals);
    auto attached = attach_with(std::move(*choice), kernel, device, options);
    if (!attached && options.backend == "auto" && found_a_node_closed(attached.error())) {
      refusals.push_back(std::move(attached).error());
      goes_on = true;
      continue;
    }
    if (!attached) return goes_on ? failure_with(std::move(refusals), attached.error()) : failure_of(attached);
    if (options.join.empty()) return attached;
    // Once a device is in it: before, nobody knows what can be mapped.
    auto replayed = replay(*options.join.front(), *attached->container());
    return replayed ? std::move(attached) : Result<Device>(failure_of(replayed));
  }
}

// One of those that are there already; null where none takes it.
std::optional<Device> join(const HostDevice& device, const AttachOptions& options, std::vector<Error>& refusals) {
  for (const auto& container : options.join) {
    if (options.backend != "auto" && options.backend != container->backend()) {
      refusals.push_back(Error({.code = EINVAL,
                                .operation = {},
                                .object = fmt::format("attach {} to container {}", device.name, container->backend()),
                                .reason = fmt::format("the backend {} is asked for", options.backend)}));
      continue;
    }
    auto taken = attach_to(container, device);
    if (taken) return std::move(*taken);
    refusals.push_back(std::move(taken).error());
  }
  return std::nullopt;
}

}  // namespace

Result<Device> attach(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  if (options.vf_token && !device.vf_token) {
    HostDevice with_token = device;
    with_token.vf_token = options.vf_token;
    return attach(kernel, with_token, options);
  }
  if (options.container) return attach_to(options.container, device);
  std::vector<Error> refusals;
  auto joined = join(device, options, refusals);
  auto attached = joined ? Result<Device>(std::move(*joined)) : attach_to_new(kernel, device, options);
  if (options.refusals != nullptr) *options.refusals = refusals;
  if (attached || refusals.empty()) return attached;
  return failure_with(std::move(refusals), attached.error());
}

}  // namespace postern
