// SPDX-License-Identifier: Apache-2.0
// Type1Container: an address space of the type1 backend, on /dev/vfio/vfio and the groups in it.
#pragma once

#include <postern/container.hpp>
#include <postern/dirty_tracker.hpp>

#include "iommu/kernel_container.hpp"
#include "iommu/type1/dirty_log.hpp"

namespace postern::type1 {

class Type1Container final : public Container {
 public:
  Type1Container(Fd fd, const KernelContainer::Extension& extension);

  [[nodiscard]] Facts facts() const override;
  // Version 1 has none (vfio_iommu_type1_dirty_pages, Linux 5.8).
  [[nodiscard]] DirtyTracker* dirty_tracker() noexcept override {
    return extension_.version == 1 ? nullptr : &dirty_tracker_;
  }

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
  Type1DirtyLog dirty_log_;
  DirtyTracker dirty_tracker_;
};

}  // namespace postern::type1
