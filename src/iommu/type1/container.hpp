// SPDX-License-Identifier: Apache-2.0
// Type1Container: an address space of the type1 backend, on /dev/vfio/vfio and the groups in it.
#pragma once

#include <postern/container.hpp>

#include "iommu/kernel_container.hpp"

namespace postern::type1 {

class Type1Container final : public Container {
 public:
  Type1Container(Fd fd, const KernelContainer::Extension& extension);

  [[nodiscard]] Facts facts() const override;

 private:
  [[nodiscard]] int do_map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] int do_unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int do_unmap_all() override;
  [[nodiscard]] Result<Fd> do_attach(const HostDevice& device) override;
  [[nodiscard]] const Group* group_of(const std::string& device) const override { return container_.group_of(device); }
  [[nodiscard]] Result<void> do_detach(const std::string& device, Fd fd) override;
  [[nodiscard]] Result<void> do_close() override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;

  [[nodiscard]] Result<void> set_iommu(const HostDevice& device);

  KernelContainer container_;
  KernelContainer::Extension extension_;  // VFIO_TYPE1v2_IOMMU or VFIO_TYPE1_IOMMU
  bool unmaps_all_;                       // VFIO_UNMAP_ALL
};

}  // namespace postern::type1
