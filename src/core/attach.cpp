// SPDX-License-Identifier: Apache-2.0
// attach(): a container of the right backend, the device in it, and the Device to drive it with.
#include <postern/attach.hpp>

#include "device/kernel_device_io.hpp"

namespace postern {

Result<Device> attach(Kernel& kernel, const HostDevice& device, const AttachOptions& options) {
  std::shared_ptr<Container> container = options.container;
  if (!container) {
    auto backend = choose_backend(kernel, options.backend, device);
    if (!backend) return failure_of(backend);
    auto opened = (*backend)->open(kernel, options.container_options);
    if (!opened) return failure_of(opened);
    container = std::move(*opened);
  }
  auto attachment = Attachment::make(container, device);
  if (!attachment) return failure_of(attachment);
  return Device::open(std::make_unique<KernelDeviceIo>(std::move(*attachment)), std::move(container));
}

}  // namespace postern
