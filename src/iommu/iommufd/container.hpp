// SPDX-License-Identifier: Apache-2.0
// IommufdContainer: an address space of the iommufd backend: one IOAS, the HWPTs under it, the devices on those.
#pragma once

#include <list>
#include <memory>
#include <postern/container.hpp>
#include <postern/dirty_tracker.hpp>
#include <vector>

#include "iommu/iommufd/cdev.hpp"
#include "iommu/iommufd/dirty_log.hpp"
#include "iommu/iommufd/hwpt.hpp"
#include "iommu/iommufd/iommufd.hpp"

namespace postern::iommufd {

class IommufdContainer final : public Container {
 public:
  // Takes over the IOAS.
  IommufdContainer(std::shared_ptr<Iommufd> iommufd, ObjectId ioas);
  ~IommufdContainer() override;

  [[nodiscard]] Facts facts() const override;
  [[nodiscard]] DirtyTracker* dirty_tracker() noexcept override { return &dirty_tracker_; }

 private:
  [[nodiscard]] int do_map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] int do_unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int do_unmap_all() override;
  [[nodiscard]] Result<Fd> do_attach(const HostDevice& device) override;
  [[nodiscard]] Result<void> do_detach(const std::string& device, Fd fd) override;
  [[nodiscard]] Result<void> do_close() override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;

  // Puts the device on a HWPT that suits it; null where the kernel made one of its own for the IOAS (mediated devices).
  [[nodiscard]] Result<Hwpt*> attach_hwpt(const BoundDevice& bound, const std::string& name, bool tracks_dirty);

  // In the order of need: an IOAS can only be destroyed without HWPTs, all of it only while /dev/iommu is open.
  std::shared_ptr<Iommufd> iommufd_;
  ObjectId ioas_;
  std::list<Hwpt> hwpts_;  // a list, since devices point into it
  std::vector<AttachedDevice> attached_;
  HwptDirtyLog dirty_log_;
  DirtyTracker dirty_tracker_;
};

}  // namespace postern::iommufd
