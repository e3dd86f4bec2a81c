// SPDX-License-Identifier: Apache-2.0
// MmRegions: the memory that a process has registered for version 2 of sPAPR, shared by all its containers.
#pragma once

#include <cstdint>
#include <map>
#include <optional>

#include "sim/process/process.hpp"

namespace postern::sim {

// struct mm_iommu_table_group_mem_t
struct MmRegion {
  std::uintptr_t address = 0;
  std::uint64_t length = 0;
  std::uint64_t used = 1;
  std::uint64_t mapped = 1;                // the number of mappings plus 1
  std::optional<std::uint64_t> page_size;  // of its smallest page; looked up when needed
};

// The functions of arch/powerpc/mm/book3s64/iommu_api.c (Linux 7.3) of the names mm_iommu_*.
class MmRegions {
 public:
  explicit MmRegions(Process& process) : process_(process) {}

  // Returns exactly this region, with one more user; null if there is none.
  [[nodiscard]] MmRegion* get(std::uintptr_t address, std::uint64_t length);
  // Registers it with one user: 0, a negated errno, or the number of existing pages if some are missing.
  [[nodiscard]] int add(std::uintptr_t address, std::uint64_t length, MmRegion*& region);
  // Removes a user. The last one removes the region, unless it is mapped: -EBUSY.
  int put(MmRegion& region);

  // Returns the region that contains all of this; null if there is none.
  [[nodiscard]] MmRegion* lookup(std::uintptr_t address, std::uint64_t length);
  // Whether all of the region's memory is in whole pages of this size or larger.
  [[nodiscard]] static bool has_pages_of(MmRegion& region, std::uint64_t size);

 private:
  Process& process_;
  std::map<std::uintptr_t, MmRegion> regions_;
};

}  // namespace postern::sim
