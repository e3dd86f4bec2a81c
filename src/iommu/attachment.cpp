// SPDX-License-Identifier: Apache-2.0
// Attachment: one device's place in a container.
#include "iommu/attachment.hpp"

#include <unistd.h>

#include "base/log.hpp"

namespace postern {

Result<Attachment> Attachment::make(std::shared_ptr<Container> container, const HostDevice& device) {
  std::string name = device.name;  // before anything is attached: memory may run out here
  auto fd = container->attach(device);
  if (!fd) return failure_of(fd);
  return Attachment(std::move(container), std::move(name), std::move(*fd));
}

Attachment::~Attachment() {
  log_failure_of([this] { return detach(); });
}

Result<void> Attachment::detach() {
  if (!fd_) return {};
  if (container_->process_ != ::getpid()) {
    fd_.reset();
    return {};
  }
  return container_->detach(device_, std::move(fd_));
}

}  // namespace postern
