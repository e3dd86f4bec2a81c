// SPDX-License-Identifier: Apache-2.0
// Type1DirtyLog: VFIO_IOMMU_DIRTY_PAGES of a type1 container.
#pragma once

#include "iommu/dirty_log.hpp"

namespace postern::type1 {

class Type1Container;

// The kernel logs pages that a driver pinned for a mediated device, or wrote itself. While a device with an IOMMU is in
// the container, the kernel reports every page dirty (update_user_bitmap, Linux 5.8).
class Type1DirtyLog final : public DirtyLog {
 public:
  explicit Type1DirtyLog(const Type1Container& container) noexcept : container_(&container) {}

  [[nodiscard]] TrackedDevice probe(const Attached& device) const override;
  [[nodiscard]] Result<void> start(std::span<const Attached* const> devices) override;
  [[nodiscard]] Result<void> stop() override;
  [[nodiscard]] bool reports_whole_mappings() const noexcept override { return started_; }
  [[nodiscard]] Result<void> collect(const DirtyRequest& request, AfterQuery after) override;
  [[nodiscard]] int unmap(const DirtyRequest& mapping) override;

  // The kernel's container lost its IOMMU with the last group, and the log with it.
  void lose() noexcept { started_ = false; }

 private:
  [[nodiscard]] int get_bitmap(const DirtyRequest& request) const;

  const Type1Container* container_;
  std::uint64_t most_pages_ = 0;  // in one call
  bool started_ = false;
};

}  // namespace postern::type1
