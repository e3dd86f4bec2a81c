// SPDX-License-Identifier: Apache-2.0
// Type1: vfio_iommu_type1 of a container: mappings, their accounting, and the domain that the groups share.
#pragma once

#include <linux/vfio.h>

#include <vector>

#include "sim/iommu/container_iommu.hpp"
#include "sim/iommu/iommu_model.hpp"
#include "sim/process/process.hpp"

namespace postern::sim {

class Type1 final : public ContainerIommu {
 public:
  // `version` 1 or 2; `mapping_limit` is the module's current dma_entry_limit.
  Type1(const IommuModel& iommu, Process& process, int version, std::uint64_t mapping_limit);
  ~Type1() override;

  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;
  // No group can be attached while a mapping waits for its new address (vfio_iommu_type1_attach_group).
  [[nodiscard]] int attach(int /*group*/) override { return moving_ != 0 ? -EBUSY : 0; }
  void detach(int /*group*/) override {}
  // `is_set`: the container has an IOMMU.
  [[nodiscard]] static int check_extension(unsigned long extension, bool is_set);

 private:
  [[nodiscard]] std::uint64_t page() const { return iommu_.page_sizes & -iommu_.page_sizes; }
  [[nodiscard]] bool is_usable(IovaRange range) const;
  [[nodiscard]] int get_info(vfio_iommu_type1_info& info) const;
  [[nodiscard]] int map(const vfio_iommu_type1_dma_map& request);
  [[nodiscard]] int give_address(const Area* area, IovaRange range, std::uintptr_t address);
  [[nodiscard]] int unmap(vfio_iommu_type1_dma_unmap& request);
  [[nodiscard]] int unmap_range(IovaRange range, std::uint64_t& unmapped, const vfio_bitmap* bitmap);
  [[nodiscard]] int take_addresses(IovaRange range, std::uint64_t& taken);
  [[nodiscard]] int dirty_pages(vfio_iommu_type1_dirty_bitmap& request);
  [[nodiscard]] int start_log();
  void stop_log();
  [[nodiscard]] int get_bitmap(const vfio_iommu_type1_dirty_bitmap_get& get);
  [[nodiscard]] int tell(const vfio_bitmap& bitmap, Iova base, const Area& area);
  [[nodiscard]] bool cuts(IovaRange range) const;
  void remove(const Area& area);

  const IommuModel& iommu_;
  Process& process_;
  std::vector<IovaRange> usable_;
  int version_;
  std::uint64_t mappings_left_;
  bool logs_dirty_ = false;
  std::size_t moving_ = 0;  // mappings without an address
};

}  // namespace postern::sim
