// SPDX-License-Identifier: Apache-2.0
// Type1Container: the type1 backend's part of a container.
#pragma once

#include "iommu/group_container.hpp"
#include "iommu/type1/dirty_log.hpp"

namespace postern::type1 {

inline constexpr std::string_view module = "vfio_iommu_type1";

class Type1Container final : public GroupContainer {
 public:
  explicit Type1Container(Opened opened);

  [[nodiscard]] CallResult map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] int unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int unmap_all() override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;
  [[nodiscard]] Container::Properties properties() const override;
  // Version 1 has none (vfio_iommu_type1_dirty_pages, Linux 5.8).
  [[nodiscard]] DirtyLog* dirty_log() noexcept override { return extension().version == 1 ? nullptr : &dirty_log_; }

 private:
  [[nodiscard]] Result<void> set_up(const HostDevice& device) override;
  void tear_down() override { dirty_log_.lose(); }

  bool unmaps_all_;  // VFIO_UNMAP_ALL
  Type1DirtyLog dirty_log_;
};

}  // namespace postern::type1
