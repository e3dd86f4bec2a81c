// SPDX-License-Identifier: Apache-2.0
// HwptDirtyLog: the dirty bits in the page tables of an IOAS.
#pragma once

#include <list>
#include <vector>

#include "iommu/dirty_log.hpp"
#include "iommu/iommufd/hwpt.hpp"

namespace postern::iommufd {

class HwptDirtyLog final : public DirtyLog {
 public:
  // All of it is the container's, and stays there.
  HwptDirtyLog(const Iommufd& iommufd, ObjectId ioas, std::list<Hwpt>& hwpts,
               const std::vector<AttachedDevice>& attached)
      : iommufd_(&iommufd), ioas_(ioas), hwpts_(&hwpts), attached_(&attached) {}

  [[nodiscard]] TrackedDevice probe(const std::string& device) const override;
  [[nodiscard]] Result<void> start(std::span<const std::string> devices) override;
  [[nodiscard]] Result<void> stop() override;
  [[nodiscard]] bool tells_whole_mappings() const noexcept override { return false; }
  [[nodiscard]] Result<void> collect(const DirtyRequest& request, AfterQuery after) override;
  [[nodiscard]] Result<void> prepare_unmap(const DirtyRequest& mapping) override;
  [[nodiscard]] int unmap(const DirtyRequest& mapping) override;

 private:
  [[nodiscard]] Hwpt* hwpt_of(const std::string& device) const;
  [[nodiscard]] Result<void> track(Hwpt& hwpt, bool on) const;
  [[nodiscard]] int get_bitmap(const Hwpt& hwpt, const DirtyRequest& request, AfterQuery after) const;

  const Iommufd* iommufd_;
  ObjectId ioas_;
  std::list<Hwpt>* hwpts_;
  const std::vector<AttachedDevice>* attached_;
};

}  // namespace postern::iommufd
