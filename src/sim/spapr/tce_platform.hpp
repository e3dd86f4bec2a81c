// SPDX-License-Identifier: Apache-2.0
// TcePlatform: what POWER's platforms make of a DMA window: struct iommu_table_group and its operations. powernv keeps
// the tables itself; pseries asks a hypervisor.
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

// What VFIO_IOMMU_SPAPR_TCE_CREATE asks for.
struct WindowRequest {
  std::uint32_t page_shift = 0;
  std::uint64_t size = 0;
  std::uint32_t levels = 0;
};

// struct iommu_table: a window and where it lies. Its entries are in the container's AddressSpace.
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
    std::uint32_t default_size = 0;  // bytes of the default window, which begins at 0
    std::uint64_t page_sizes = 0;    // bitmap, of windows that are created
    std::uint32_t levels = 0;        // as VFIO_IOMMU_SPAPR_TCE_GET_INFO tells them
    bool has_eeh = false;
    bool write_implies_read = false;  // an entry that a device may write, it may read
    bool ends_tables = false;         // an entry past a table's end is refused
  };

  virtual ~TcePlatform() = default;
  [[nodiscard]] virtual const Facts& facts() const = 0;

  // The operations of struct iommu_table_group_ops, by their names there. 0 or a negated errno; get_table_size: bytes,
  // 0 where there is no such table.
  [[nodiscard]] virtual std::uint64_t get_table_size(const WindowRequest& request) const = 0;
  [[nodiscard]] virtual int create_table(int group, unsigned slot, const WindowRequest& request, TceTable& table) = 0;
  [[nodiscard]] virtual int set_window(int group, unsigned slot, const TceTable& table) = 0;
  virtual void unset_window(int group, unsigned slot) = 0;
};

// Null where there is no sPAPR.
[[nodiscard]] std::unique_ptr<TcePlatform> make_tce_platform(Platform platform);
[[nodiscard]] std::unique_ptr<TcePlatform> make_pseries();
[[nodiscard]] std::unique_ptr<TcePlatform> make_powernv();

}  // namespace postern::sim
