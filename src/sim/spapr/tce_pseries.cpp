// SPDX-License-Identifier: Apache-2.0
// pseries: a partition under a hypervisor, QEMU: arch/powerpc/platforms/pseries/iommu.c (Linux 6.12, 7.3). A group is a
// host bridge with its own tables.
#include <algorithm>
#include <bit>
#include <cerrno>
#include <map>

#include "sim/spapr/tce_platform.hpp"

namespace postern::sim {
namespace {

constexpr std::uint64_t dynamic_window = std::uint64_t{1} << 59;  // where QEMU puts it (dma64_win_addr)
constexpr std::uint64_t most_entries = 0xffffffff;                // the result of ibm,query-pe-dma-window

class Pseries final : public TcePlatform {
 public:
  [[nodiscard]] const Facts& facts() const override { return facts_; }
  [[nodiscard]] std::uint64_t get_table_size(const WindowRequest& request) const override;
  [[nodiscard]] int create_table(int group, unsigned slot, const WindowRequest& request, TceTable& table) override;
  [[nodiscard]] int set_window(int group, unsigned slot, const TceTable& table) override;
  void unset_window(int group, unsigned slot) override { bridges_[group].tables.at(slot).reset(); }

 private:
  struct Window {
    std::uint64_t id;
    bool is_dynamic;
  };
  struct Bridge {
    std::array<std::optional<Window>, tce_slots> tables;
    bool failed = false;  // on failed_ddw_pdn_list, permanently

    [[nodiscard]] bool has_dynamic() const {
      return std::any_of(tables.begin(), tables.end(), [](const auto& table) { return table && table->is_dynamic; });
    }
  };

  Facts facts_{.default_size = 0x40000000,
               .page_sizes = 0x1211000,
               .levels = 1,
               .has_eeh = false,
               .write_implies_read = false,
               .ends_tables = true};
  std::map<int, Bridge> bridges_;
  std::uint64_t next_id_ = 1;
};

// spapr_tce_get_table_size: the size of a table that is too deep is the largest long.
std::uint64_t Pseries::get_table_size(const WindowRequest& request) const {
  return request.levels > 1 ? 0xffffffff : request.size >> (request.page_shift - 3);
}

// spapr_tce_create_table
int Pseries::create_table(int group, unsigned slot, const WindowRequest& request, TceTable& table) {
  if (!std::has_single_bit(request.size) || request.levels > 1) return -EINVAL;
  Bridge& bridge = bridges_[group];
  if (bridge.failed) return -ENODEV;
  const bool is_default = slot == 0 && request.page_shift == 12 && request.size <= facts_.default_size;
  const std::uint64_t entries = request.size >> request.page_shift;
  // ibm,reset-pe-dma-window, which creates the default window, would remove the dynamic one.
  if (slot == 0 && bridge.has_dynamic()) return -EPERM;
  if (!is_default) {
    if (entries > most_entries) return -EINVAL;
    // The hypervisor always has the default window, used or not, and one more.
    bridge.failed = entries == 0 || bridge.has_dynamic();
    if (bridge.failed) return -ENODEV;
  }
  table.id = next_id_++;
  table.first = is_default ? 0 : dynamic_window;
  table.page_shift = request.page_shift;
  table.entries = entries;
  table.counted = get_table_size(request);
  bridge.tables.at(slot) = {table.id, !is_default};
  return 0;
}

// spapr_tce_set_window: the hypervisor's table is for this one host bridge only.
int Pseries::set_window(int group, unsigned slot, const TceTable& table) {
  const auto& own = bridges_[group].tables.at(slot);
  return own && own->id == table.id ? 0 : -EPERM;
}

}  // namespace

std::unique_ptr<TcePlatform> make_pseries() { return std::make_unique<Pseries>(); }

}  // namespace postern::sim
