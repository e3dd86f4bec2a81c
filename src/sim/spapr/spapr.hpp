// SPDX-License-Identifier: Apache-2.0
// Spapr: vfio_iommu_spapr_tce of a container: DMA windows, their accounting, registered memory, and EEH.
#pragma once

#include <linux/vfio.h>

#include <array>
#include <functional>
#include <optional>
#include <vector>

#include "sim/iommu/container_iommu.hpp"
#include "sim/process/process.hpp"
#include "sim/spapr/mm_regions.hpp"
#include "sim/spapr/tce_platform.hpp"

namespace postern::sim {

class Spapr final : public ContainerIommu {
 public:
  // EEH operations on all of a group's functions.
  using ResetGroup = std::function<void(int group)>;
  // `version` 1 or 2.
  Spapr(Process& process, MmRegions& regions, TcePlatform& platform, ResetGroup reset_group, int version);
  ~Spapr() override;

  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;
  [[nodiscard]] int attach(int group) override;
  void detach(int group) override;
  [[nodiscard]] static int check_extension(const TcePlatform& platform, unsigned long extension);

 private:
  [[nodiscard]] int ioctl_of_v1(unsigned long request);
  [[nodiscard]] int ioctl_of_v2(unsigned long request, void* argument);
  [[nodiscard]] int get_info(vfio_iommu_spapr_tce_info& info) const;
  [[nodiscard]] int eeh(const vfio_eeh_pe_op& operation);

  [[nodiscard]] int enable();
  void disable();

  // Mapping, in map.cpp.
  [[nodiscard]] int map(const vfio_iommu_type1_dma_map& request);
  [[nodiscard]] int unmap(const vfio_iommu_type1_dma_unmap& request);
  [[nodiscard]] int build(const TceTable& table, const Area& area);
  [[nodiscard]] int use_page(std::uintptr_t address, std::uint64_t page, MmRegion*& region);
  void clear(IovaRange range);

  // Registered memory, in map.cpp, too.
  [[nodiscard]] int register_memory(std::uint64_t address, std::uint64_t length);
  [[nodiscard]] int unregister_memory(std::uint64_t address, std::uint64_t length);

  // Windows, in windows.cpp.
  [[nodiscard]] int create(vfio_iommu_spapr_tce_create& request);
  [[nodiscard]] int remove(const vfio_iommu_spapr_tce_remove& request);
  [[nodiscard]] int create_window(const WindowRequest& request, std::uint64_t& start);
  [[nodiscard]] int create_table(unsigned slot, const WindowRequest& request, TceTable& table);
  [[nodiscard]] int create_default_window();
  void free_table(unsigned slot);
  [[nodiscard]] std::optional<unsigned> slot_holding(std::uint64_t iova) const;

  Process& process_;
  MmRegions& regions_;
  TcePlatform& platform_;
  ResetGroup reset_group_;
  bool is_v2_;
  bool enabled_ = false;
  bool knows_process_ = false;           // container->mm
  bool default_window_pending_ = false;  // it is created when needed
  std::uint64_t locked_ = 0;             // bytes, by VFIO_IOMMU_ENABLE
  std::array<std::optional<TceTable>, tce_slots> tables_;
  std::vector<int> groups_;  // latest first
  std::vector<MmRegion*> registered_;
};

}  // namespace postern::sim
