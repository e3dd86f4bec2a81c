// SPDX-License-Identifier: Apache-2.0
// IommufdContainer: the iommufd backend's part of a container: one IOAS and the HWPTs under it.
#pragma once

#include <list>
#include <memory>

#include "iommu/backend_container.hpp"
#include "iommu/iommufd/cdev.hpp"
#include "iommu/iommufd/dirty_log.hpp"
#include "iommu/iommufd/hwpt.hpp"
#include "iommu/iommufd/iommufd.hpp"

namespace postern::iommufd {

class IommufdContainer final : public BackendContainer {
 public:
  // Takes over the IOAS.
  IommufdContainer(std::shared_ptr<Iommufd> iommufd, ObjectId ioas);
  ~IommufdContainer() override;

  [[nodiscard]] CallResult map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] bool maps_files() const noexcept override { return true; }  // IOMMU_IOAS_MAP_FILE, Linux 6.14
  [[nodiscard]] CallResult map_file(Iova iova, const Memory& memory, Access access) override;
  [[nodiscard]] CallResult copy(const BackendContainer& from, IovaRange range, Access access) override;
  [[nodiscard]] LockedMemoryCounter locked_memory_counter() const override { return iommufd_->counter(); }
  [[nodiscard]] int unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int unmap_all() override;
  [[nodiscard]] Result<std::unique_ptr<Attached>> open(const HostDevice& device,
                                                       const std::shared_ptr<const KvmVfioDevice>& kvm) const override;
  [[nodiscard]] Result<void> connect(Attached& device) override;
  [[nodiscard]] Result<void> check_take_over(const Attached& device, const BackendContainer& from,
                                             const std::string& object) const override;
  [[nodiscard]] Result<void> take_over(Attached& device, bool is_tracked) override;
  [[nodiscard]] Result<void> release_unused() override;
  [[nodiscard]] Result<void> detach(Attached& device) override;
  [[nodiscard]] Result<void> close() override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;
  [[nodiscard]] Explanation explain_map(CallResult failed, IovaRange range, const void* address) const override;
  [[nodiscard]] Container::Properties properties() const override;
  [[nodiscard]] DirtyLog* dirty_log() noexcept override { return &dirty_log_; }

  [[nodiscard]] std::list<Hwpt>& hwpts() noexcept { return hwpts_; }

 private:
  // Puts the device on a HWPT that suits it; null if the kernel made one of its own for the IOAS (mediated devices).
  // If it is on one of another container, it moves at once, or stays there. If `is_tracked`, the HWPT logs its writes.
  [[nodiscard]] Result<Hwpt*> attach_hwpt(const AttachedCdev& device, bool is_tracked);

  // Destroyed in reverse order: an IOAS can be destroyed only without HWPTs, and all of it only while /dev/iommu is
  // open.
  std::shared_ptr<Iommufd> iommufd_;
  ObjectId ioas_;
  std::list<Hwpt> hwpts_;  // a list, since devices point into it
  HwptDirtyLog dirty_log_;
};

}  // namespace postern::iommufd
