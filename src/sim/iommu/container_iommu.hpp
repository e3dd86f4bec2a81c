// SPDX-License-Identifier: Apache-2.0
// ContainerIommu: what VFIO_SET_IOMMU gives a container: a driver of vfio_iommu_driver_ops, and what it keeps.
#pragma once

#include <memory>

#include "sim/iommu/address_space.hpp"

namespace postern::sim {

// Goes with the container's last group, which it has detached by then.
class ContainerIommu {
 public:
  ContainerIommu() = default;
  ContainerIommu(const ContainerIommu&) = delete;
  ContainerIommu& operator=(const ContainerIommu&) = delete;
  virtual ~ContainerIommu() = default;

  [[nodiscard]] virtual int ioctl(unsigned long request, void* argument) = 0;
  // Whether the group may come: 0 or a negated errno.
  [[nodiscard]] virtual int attach(int group) = 0;
  virtual void detach(int group) = 0;

  // What the DMA of the attached groups goes through.
  [[nodiscard]] const std::shared_ptr<Domain>& domain() const noexcept { return domain_; }

 protected:
  std::shared_ptr<AddressSpace> space_ = std::make_shared<AddressSpace>();
  std::shared_ptr<Domain> domain_ = std::make_shared<Domain>(space_);
};

}  // namespace postern::sim
