// SPDX-License-Identifier: Apache-2.0
// GivenFdUse: the use of a device's given cdev, by one attach() at a time.
#pragma once

#include <memory>
#include <postern/descriptors.hpp>
#include <utility>

namespace postern {

class GivenFdUse {
 public:
  GivenFdUse() noexcept = default;  // none
  // Begins to use it; empty if another one does.
  explicit GivenFdUse(std::shared_ptr<GivenFd> given) noexcept {
    if (given && !given->in_use_.exchange(true)) given_ = std::move(given);
  }
  GivenFdUse(GivenFdUse&&) noexcept = default;
  GivenFdUse& operator=(GivenFdUse&&) noexcept = default;  // only into an empty one
  ~GivenFdUse() {
    if (given_) given_->in_use_ = false;
  }
  explicit operator bool() const noexcept { return given_ != nullptr; }

  // Its id in the iommufd; 0: it is not bound.
  [[nodiscard]] std::uint32_t iommufd_id() const noexcept { return given_->iommufd_id_; }
  // Whether attach() has bound it; else the caller has told the id.
  [[nodiscard]] bool was_bound_here() const noexcept { return given_->was_bound_here_; }
  // Whether attach() has bound it to this iommufd, which is still open.
  [[nodiscard]] bool is_bound_to(const std::shared_ptr<const void>& iommufd) const noexcept {
    return given_->was_bound_here_ && given_->iommufd_.lock() == iommufd;
  }
  // Remembers the binding, which lasts as long as the descriptor.
  void bound_to(const std::shared_ptr<const void>& iommufd, std::uint32_t id) noexcept {
    given_->iommufd_ = iommufd;
    given_->iommufd_id_ = id;
    given_->was_bound_here_ = true;
  }

 private:
  std::shared_ptr<GivenFd> given_;
};

}  // namespace postern
