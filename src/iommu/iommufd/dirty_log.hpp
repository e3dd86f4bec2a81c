// SPDX-License-Identifier: Apache-2.0
// HwptDirtyLog: the dirty bits in the page tables of an IOAS.
#pragma once

#include "iommu/dirty_log.hpp"
#include "iommu/iommufd/hwpt.hpp"

namespace postern::iommufd {

class IommufdContainer;

class HwptDirtyLog final : public DirtyLog {
 public:
  // All of these belong to the container, and outlive this object.
  HwptDirtyLog(const Iommufd& iommufd, ObjectId ioas, IommufdContainer& container) noexcept
      : iommufd_(&iommufd), ioas_(ioas), container_(&container) {}

  [[nodiscard]] TrackedDevice probe(const Attached& device) const override;
  [[nodiscard]] Result<void> start(std::span<const Attached* const> devices) override;
  [[nodiscard]] Result<void> stop() override;
  [[nodiscard]] bool reports_whole_mappings() const noexcept override { return false; }
  [[nodiscard]] Result<void> collect(const DirtyRequest& request, AfterQuery after) override;
  [[nodiscard]] Result<void> prepare_unmap(const DirtyRequest& mapping) override;
  [[nodiscard]] int unmap(const DirtyRequest& mapping) override;

 private:
  [[nodiscard]] int get_bitmap(const Hwpt& hwpt, const DirtyRequest& request, AfterQuery after) const;

  const Iommufd* iommufd_;
  ObjectId ioas_;
  IommufdContainer* container_;
};

}  // namespace postern::iommufd
