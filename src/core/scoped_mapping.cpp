// SPDX-License-Identifier: Apache-2.0
// ScopedMapping: a mapping that is removed when it goes out of scope.
#include <postern/scoped_mapping.hpp>

#include <fmt/format.h>

#include "base/log.hpp"
#include "base/words.hpp"
#include "iommu/address_space.hpp"
#include "kernel/ioctl.hpp"

namespace postern {

Result<ScopedMapping> ScopedMapping::map(std::shared_ptr<Container> container, Iova iova, const Memory& memory,
                                         Access access) {
  if (!container) {
    return refusal({.result = -EINVAL,
                    .object = fmt::format("map {}+{}", to_string(iova), size_text(memory.length())),
                    .reason = "the container is null"});
  }
  POSTERN_TRY(container->map(iova, memory, access));
  return ScopedMapping(std::move(container), {iova, iova + (memory.length() - 1)});
}

ScopedMapping& ScopedMapping::operator=(ScopedMapping&& other) noexcept {
  if (this != &other) {
    const ScopedMapping old(std::move(*this));
    container_ = std::move(other.container_);
    range_ = other.range_;
  }
  return *this;
}

ScopedMapping::~ScopedMapping() {
  if (container_ && container_->space().is_of_this_process()) log_failure_of([this] { return unmap(); });
}

Result<void> ScopedMapping::unmap() {
  if (!container_) return {};
  auto unmapped = container_->unmap(range_.first, range_.length());
  if (unmapped) container_.reset();
  return unmapped;
}

}  // namespace postern
