// SPDX-License-Identifier: Apache-2.0
// DmaWindows and Preregistration: forward to the backend.
#include "iommu/capabilities.hpp"

namespace postern {

DmaWindowLimits DmaWindows::limits() const { return impl_->limits(); }
std::vector<DmaWindow> DmaWindows::list() const { return impl_->list(); }
Result<DmaWindow> DmaWindows::create(const DmaWindowRequest& request) { return impl_->create(request); }
Result<void> DmaWindows::remove(Iova start) { return impl_->remove(start); }
Result<DmaWindow> DmaWindows::make_room(std::uint64_t bytes, std::uint64_t page_of_memory) {
  return impl_->make_room(bytes, page_of_memory);
}

Result<void> Preregistration::add(std::span<std::byte> memory) { return impl_->add(memory); }
Result<void> Preregistration::remove(std::span<std::byte> memory) { return impl_->remove(memory); }

}  // namespace postern
