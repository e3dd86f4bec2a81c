// SPDX-License-Identifier: Apache-2.0
// Attachment: one device's place in a container, and the fd it is driven through.
#pragma once

#include <memory>
#include <postern/container.hpp>
#include <string>

namespace postern {

// Leaves the container when it goes; in a child of fork(2) it only closes the child's fd. Holds the container, so that
// that cannot go first.
class Attachment {
 public:
  [[nodiscard]] static Result<Attachment> make(std::shared_ptr<Container> container, const HostDevice& device);
  Attachment(Attachment&&) noexcept = default;
  Attachment& operator=(Attachment&&) noexcept = delete;
  ~Attachment();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] Kernel& kernel() const noexcept { return fd_.kernel(); }
  [[nodiscard]] const std::string& device() const noexcept { return device_; }
  // The group it was opened through; null where it was opened by a node of its own.
  [[nodiscard]] const Group* group() const { return container_->group_of(device_); }
  // Says what went wrong, where the destructor only logs it. The second time does nothing.
  [[nodiscard]] Result<void> detach();

 private:
  Attachment(std::shared_ptr<Container> container, std::string device, Fd fd) noexcept
      : container_(std::move(container)), device_(std::move(device)), fd_(std::move(fd)) {}

  std::shared_ptr<Container> container_;
  std::string device_;
  Fd fd_;
};

}  // namespace postern
