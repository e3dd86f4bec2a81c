// SPDX-License-Identifier: Apache-2.0
// DmaWindows and Preregistration: check that the container may be used, and forward to the backend.
#include "iommu/capabilities.hpp"

#include "iommu/container_call.hpp"

namespace postern {

DmaWindowLimits DmaWindows::limits() const { return impl_->limits(); }
std::vector<DmaWindow> DmaWindows::list() const { return impl_->list(); }
Result<DmaWindow> DmaWindows::create(const DmaWindowRequest& request) {
  const ContainerCall call(impl_->address_space());
  POSTERN_TRY(call.check("create a DMA window"));
  return impl_->create(request);
}
Result<void> DmaWindows::remove(Iova start) {
  const ContainerCall call(impl_->address_space());
  POSTERN_TRY(call.check("remove a DMA window"));
  return impl_->remove(start);
}
Result<DmaWindow> DmaWindows::make_room(std::uint64_t bytes, std::uint64_t page_of_memory) {
  const ContainerCall call(impl_->address_space());
  POSTERN_TRY(call.check("make room in the DMA windows"));
  return impl_->make_room(bytes, page_of_memory);
}

Result<void> Preregistration::add(std::span<std::byte> memory) {
  const ContainerCall call(impl_->address_space());
  POSTERN_TRY(call.check("register memory"));
  return impl_->add(memory);
}
Result<void> Preregistration::remove(std::span<std::byte> memory) {
  const ContainerCall call(impl_->address_space());
  POSTERN_TRY(call.check("unregister memory"));
  return impl_->remove(memory);
}

}  // namespace postern
