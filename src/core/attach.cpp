// SPDX-License-Identifier: Apache-2.0
// attach(): a container that takes the device, there already or new, and the Device to drive it with.
#include <postern/attach.hpp>

#include "device/kernel_device_io.hpp"

namespace postern {
namespace {

Result<Device> attach_to(std::shared_ptr<Container> container, const HostDevice& device) {
  auto attachment = Attachment::make(container, device);
  if (!attachment) return failure_of(attachment);
  return Device::open(std::make_unique<KernelDeviceIo>(std::move(*attachment)), std::move(container));
}

Result<Device> attach_to_new(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  auto backend = choose_backend(kernel, options.backend, device);
  if (!backend) return failure_of(backend);
  auto opened = (*backend)->open(kernel, options.container_options);
  if (!opened) return failure_of(opened);
  return attach_to(std::move(*opened), device);
}

}  // namespace

Result<Device> attach(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  if (options.container) return attach_to(options.container, device);
  std::vector<Error> refusals;
  const auto attached = [&](Result<Device> taken) {
    if (options.refusals != nullptr) *options.refusals = std::move(refusals);
    return taken;
  };
  for (const auto& container : options.join) {
    if (options.backend != "auto" && options.backend != container->backend()) continue;
    auto taken = attach_to(container, device);
    if (taken) return attached(std::move(taken));
    refusals.push_back(std::move(taken).error());
  }
  auto taken = attach_to_new(kernel, device, options);
  if (taken || refusals.empty()) return attached(std::move(taken));
  const Error& last = taken.error();
  Error::Details refused{.code = last.code(),
                         .operation = last.operation(),
                         .object = last.object(),
                         .reason = last.reason(),
                         .remedy = last.remedy(),
                         .causes = last.causes()};
  refused.causes.insert(refused.causes.begin(), refusals.begin(), refusals.end());
  return failure(std::move(refused));
}

}  // namespace postern
