// SPDX-License-Identifier: Apache-2.0
// powernv: a POWER9 machine without a hypervisor: arch/powerpc/platforms/powernv/pci-ioda.c and pci-ioda-tce.c (Linux
// 7.3).
#include <algorithm>
#include <bit>
#include <cerrno>

#include "sim/spapr/tce_platform.hpp"

namespace postern::sim {
namespace {

constexpr std::uint32_t most_levels = 5;                       // POWERNV_IOMMU_MAX_LEVELS
constexpr std::uint64_t bypass_base = std::uint64_t{1} << 59;  // pnv_ioda_pe::tce_bypass_base
constexpr unsigned largest_level_shift = 24;                   // the largest allocation: PAGE_SHIFT + MAX_PAGE_ORDER

unsigned log2_of(std::uint64_t power) { return static_cast<unsigned>(std::countr_zero(power)); }

// The logarithm of a level's size in bytes.
unsigned level_shift(const WindowRequest& request, unsigned entries_shift) {
  return std::max((entries_shift + request.levels - 1) / request.levels + 3, log2_of(host_page()));
}

class Powernv final : public TcePlatform {
 public:
  [[nodiscard]] const Facts& facts() const override { return facts_; }
  [[nodiscard]] std::uint64_t get_table_size(const WindowRequest& request) const override;
  [[nodiscard]] int create_table(int group, unsigned slot, const WindowRequest& request, TceTable& table) override;
  // Any group's entry of the table of windows may point to any table.
  [[nodiscard]] int set_window(int /*group*/, unsigned /*slot*/, const TceTable& /*table*/) override { return 0; }
  void unset_window(int /*group*/, unsigned /*slot*/) override {}

 private:
  Facts facts_{.default_size = 0x80000000,
               .page_sizes = 0x40211000,
               .levels = most_levels,
               .has_eeh = true,
               .write_implies_read = true,  // pnv_tce_xchg
               .ends_tables = false};       // pnv_tce has no bound
};

// pnv_pci_ioda2_get_table_size: the table and a second one, of user-space addresses.
std::uint64_t Powernv::get_table_size(const WindowRequest& request) const {
  if (request.levels == 0 || request.levels > most_levels || !std::has_single_bit(request.size)) return 0;
  const unsigned window_shift = log2_of(request.size);
  if (window_shift < request.page_shift) return 0;
  const unsigned entries_shift = window_shift - request.page_shift;
  const std::uint64_t level = std::uint64_t{1} << level_shift(request, entries_shift);
  std::uint64_t table = std::max(std::uint64_t{0x1000}, std::uint64_t{1} << (entries_shift + 3));
  std::uint64_t bytes = 0;
  for (std::uint32_t levels = request.levels; levels > 0; --levels) {
    bytes += (table + level - 1) / level * level;
    table = std::max(table / level * 8, level);
  }
  return 2 * bytes;
}

// pnv_pci_ioda2_table_alloc_pages
int Powernv::create_table(int /*group*/, unsigned slot, const WindowRequest& request, TceTable& table) {
  if (request.levels == 0 || request.levels > most_levels || !std::has_single_bit(request.size)) return -EINVAL;
  const unsigned entries_shift = log2_of(request.size) - request.page_shift;
  const unsigned level = level_shift(request, entries_shift);
  if ((level - 3) * request.levels + request.page_shift >= 55) return -EINVAL;
  if (level > largest_level_shift) return -ENOMEM;
  // A table has at least one page of the host, and the window grows with it.
  const unsigned table_shift = std::max(entries_shift + 3, log2_of(host_page()));
  table.first = slot == 0 ? 0 : bypass_base;
  table.page_shift = request.page_shift;
  table.entries = std::uint64_t{1} << (table_shift - 3);
  table.counted = get_table_size(request);
  return 0;
}

}  // namespace

std::unique_ptr<TcePlatform> make_powernv() { return std::make_unique<Powernv>(); }

std::unique_ptr<TcePlatform> make_tce_platform(Platform platform) {
  if (platform == Platform::pseries) return make_pseries();
  return platform == Platform::powernv ? make_powernv() : nullptr;
}

}  // namespace postern::sim
