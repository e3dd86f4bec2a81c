// SPDX-License-Identifier: Apache-2.0
// Attachment: keeps a device attached to a container.
#pragma once

#include <memory>
#include <postern/container.hpp>
#include <postern/fd.hpp>
#include <postern/kvm.hpp>
#include <span>
#include <utility>
#include <vector>

#include "iommu/attached.hpp"

namespace postern {

// Detaches the device on destruction; in a child of fork(2) it only closes the child's fd. Holds the container.
class Attachment {
 public:
  // Attaches devices, all or none. `kvm` is AttachOptions::kvm.
  [[nodiscard]] static Result<std::vector<Attachment>> make(const std::shared_ptr<Container>& container,
                                                            std::span<const HostDevice> devices,
                                                            const std::shared_ptr<const KvmVfioDevice>& kvm);
  Attachment(Attachment&& other) noexcept
      : container_(std::move(other.container_)), device_(std::exchange(other.device_, nullptr)) {}
  Attachment& operator=(Attachment&&) noexcept = delete;
  ~Attachment();

  // Null after detach().
  [[nodiscard]] const Attached* device() const noexcept { return device_; }
  // Null after it was moved from.
  [[nodiscard]] const std::shared_ptr<Container>& container() const noexcept { return container_; }
  // Moves the device to another container; container() is the one that then has it, also after an error. Not after
  // detach().
  [[nodiscard]] Result<void> move_to(const std::shared_ptr<Container>& container);
  // Reports errors, which the destructor only logs. Does nothing the second time.
  [[nodiscard]] Result<void> detach();

 private:
  Attachment(std::shared_ptr<Container> container, Attached& device) noexcept
      : container_(std::move(container)), device_(&device) {}

  std::shared_ptr<Container> container_;
  Attached* device_;
};

}  // namespace postern
