// SPDX-License-Identifier: Apache-2.0
// ContainerIommu: the IOMMU that VFIO_SET_IOMMU sets for a container: a driver (vfio_iommu_driver_ops) with its data.
#pragma once

#include <memory>

#include "sim/iommu/address_space.hpp"

namespace postern::sim {

// Destroyed with the container's last group, which is detached before.
class ContainerIommu {
 public:
  ContainerIommu() = default;
  ContainerIommu(const ContainerIommu&) = delete;
  ContainerIommu& operator=(const ContainerIommu&) = delete;
  virtual ~ContainerIommu() = default;

  [[nodiscard]] virtual int ioctl(unsigned long request, void* argument) = 0;
  // Attaches a group: 0 or a negated errno.
  [[nodiscard]] virtual int attach(int group) = 0;
  virtual void detach(int group) = 0;

  // The domain of the attached groups.
  [[nodiscard]] const std::shared_ptr<Domain>& domain() const noexcept { return domain_; }

 protected:
  std::shared_ptr<AddressSpace> space_ = std::make_shared<AddressSpace>();
  std::shared_ptr<Domain> domain_ = std::make_shared<Domain>(space_);
};

}  // namespace postern::sim
