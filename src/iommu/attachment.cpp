// SPDX-License-Identifier: Apache-2.0
// Attachment: keeps a device attached to a container.
#include "iommu/attachment.hpp"

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "iommu/address_space.hpp"

namespace postern {

Result<std::vector<Attachment>> Attachment::make(const std::shared_ptr<Container>& container,
                                                 std::span<const HostDevice> devices,
                                                 const std::shared_ptr<const KvmVfioDevice>& kvm) {
  std::vector<Attachment> attachments;
  attachments.reserve(devices.size());  // memory may run out here, but not once they are attached
  auto attached = POSTERN_TRY(container->space().attach(devices, kvm));
  for (Attached* const device : attached) attachments.push_back(Attachment(container, *device));
  return attachments;
}

Attachment::~Attachment() {
  log_failure_of([this] { return detach(); });
}

Result<void> Attachment::move_to(const std::shared_ptr<Container>& container) {
  const auto follow = [&] {
    if (container->space().has(*device_)) container_ = container;
  };
  const OnThrow on_throw(follow);
  auto moved = container->space().take_over(container_->space(), *device_);
  follow();
  return moved;
}

Result<void> Attachment::detach() {
  Attached* const leaving = std::exchange(device_, nullptr);
  if (leaving == nullptr) return {};
  if (!container_->space().is_of_this_process()) {
    leaving->fd.reset();
    return {};
  }
  return container_->space().detach(*leaving);
}

}  // namespace postern
