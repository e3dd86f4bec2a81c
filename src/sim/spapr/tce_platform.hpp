// SPDX-License-Identifier: Apache-2.0
// TcePlatform: a POWER platform's DMA windows: struct iommu_table_group and its operations. powernv has its own tables;
// pseries calls a hypervisor.
#pragma once

#include <unistd.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <postern-sim/host.hpp>
#include <postern/iova.hpp>

namespace postern::sim {

inline constexpr unsigned tce_slots = 2;  // IOMMU_TABLE_GROUP_MAX_TABLES

[[nodiscard]] inline std::uint64_t host_page() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

// The request of VFIO_IOMMU_SPAPR_TCE_CREATE.
struct WindowRequest {
  std::uint32_t page_shift = 0;
  std::uint64_t size = 0;
  std::uint32_t levels = 0;
};

// struct iommu_table: a window and its position. Its entries are in the container's AddressSpace.
struct TceTable {
  std::uint64_t id = 0;
  std::uint64_t first = 0;  // iova
  std::uint32_t page_shift = 0;
  std::uint64_t entries = 0;
  std::uint64_t counted = 0;  // bytes of locked memory (it_allocated_size)

  [[nodiscard]] std::uint64_t page() const { return std::uint64_t{1} << page_shift; }
  [[nodiscard]] bool holds(std::uint64_t iova) const { return iova >= first && (iova - first) >> page_shift < entries; }
  [[nodiscard]] IovaRange range() const { return {{first}, {first + (entries << page_shift) - 1}}; }
};

class TcePlatform {
 public:
  struct Facts {
    std::uint32_t default_size = 0;  // bytes of the default window, which starts at 0
    std::uint64_t page_sizes = 0;    // bitmap, of windows that are created
    std::uint32_t levels = 0;        // as VFIO_IOMMU_SPAPR_TCE_GET_INFO reports them
    bool has_eeh = false;
    bool write_implies_read = false;  // a writable entry is also readable
    bool ends_tables = false;         // an entry past a table's end is refused
  };

  virtual ~TcePlatform() = default;
  [[nodiscard]] virtual const Facts& facts() const = 0;

  // The operations of struct iommu_table_group_ops, by their names there. Return 0 or a negated errno; get_table_size:
  // bytes, 0 if there is no such table.
  [[nodiscard]] virtual std::uint64_t get_table_size(const WindowRequest& request) const = 0;
  [[nodiscard]] virtual int create_table(int group, unsigned slot, const WindowRequest& request, TceTable& table) = 0;
  [[nodiscard]] virtual int set_window(int group, unsigned slot, const TceTable& table) = 0;
  virtual void unset_window(int group, unsigned slot) = 0;
};

// Null for platforms without sPAPR.
[[nodiscard]] std::unique_ptr<TcePlatform> make_tce_platform(Platform platform);
[[nodiscard]] std::unique_ptr<TcePlatform> make_pseries();
[[nodiscard]] std::unique_ptr<TcePlatform> make_powernv();

}  // namespace postern::sim
