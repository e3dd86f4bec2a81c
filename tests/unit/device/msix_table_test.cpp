// SPDX-License-Identifier: Apache-2.0
// MsixTable, where a device's own table lies, and which parts of a BAR a guest may be given.
#include <postern/msix_table.hpp>

#include <gtest/gtest.h>

#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

namespace postern {

bool operator==(const RegionArea& a, const RegionArea& b) { return a.offset == b.offset && a.length == b.length; }

namespace msix_table_test {

using Areas = std::vector<RegionArea>;

TEST(MsixTable, KeepsWhatTheGuestWrites) {
  MsixTable table(3);
  EXPECT_TRUE(table.vector(2).masked);
  EXPECT_EQ(table.write(0x20, 8, 0x1fee00003).value(), 2U);
  EXPECT_EQ(table.write(0x28, 4, 0x4041).value(), 2U);
  EXPECT_EQ(table.write(0x2c, 4, 0xfffffffe).value(), 2U);
  EXPECT_EQ(table.vector(2).address, 0x1fee00000U) << "a message's address is a multiple of 4";
  EXPECT_EQ(table.vector(2).data, 0x4041U);
  EXPECT_FALSE(table.vector(2).masked);
  EXPECT_EQ(table.read(0x28, 8).value(), 0x4041U) << "reserved bits are 0";
  EXPECT_EQ(table.read(0x24, 4).value(), 1U);
  EXPECT_TRUE(table.vector(0).masked);
  table.reset();
  EXPECT_TRUE(table.vector(2).masked);
  EXPECT_EQ(table.vector(2).address, 0U);
}

TEST(MsixTable, KeepsPendingBits) {
  MsixTable table(70);
  table.set_pending(0, true);
  table.set_pending(69, true);
  table.set_pending(70, true);
  EXPECT_EQ(table.read_pending(0, 8).value(), 1U);
  EXPECT_EQ(table.read_pending(8, 8).value(), 1U << 5);
  EXPECT_EQ(table.read_pending(8, 4).value(), 1U << 5);
  EXPECT_EQ(table.read_pending(4, 4).value(), 0U);
  table.set_pending(69, false);
  EXPECT_FALSE(table.is_pending(69) || table.is_pending(70));
  EXPECT_TRUE(table.is_pending(0));
}

TEST(MsixTable, RefusesAccessesOutsideOfIt) {
  MsixTable table(2);
  for (const unsigned width : {0U, 1U, 2U, 16U}) EXPECT_EQ(table.read(0, width).error().code(), EINVAL) << width;
  EXPECT_EQ(table.write(4, 8, 0).error().code(), EINVAL);
  EXPECT_EQ(table.read(0x20, 4).error().code(), ERANGE);
  EXPECT_EQ(table.write(~std::uint64_t{7}, 8, 0).error().code(), ERANGE);
  EXPECT_EQ(table.read_pending(8, 8).error().code(), ERANGE);
  EXPECT_EQ(MsixTable(0).read(0, 4).error().code(), ERANGE);
  EXPECT_EQ(MsixTable(1 << 20).count(), 2048U);
}

TEST(MsixTable, IsFoundInTheDevice) {
  sim::Kernel kernel(sim::pc());
  const auto disk = attach_pci(kernel, "0000:00:01.0").value();
  const MsixLocation location = find_msix(disk).value();
  EXPECT_EQ(location.count, disk.interrupt(PciInterrupt::msix).count);
  EXPECT_LE(location.table_offset + location.table_length(), disk.device().regions()[location.table_bar].length);
  const auto edu = attach_pci(kernel, "0000:00:04.0").value();
  EXPECT_EQ(find_msix(edu).error().code(), ENODEV);
}

TEST(MappableForGuest, LeavesThePagesOfTheTableOut) {
  constexpr MsixLocation msix{
      .table_bar = 0, .table_offset = 0x2010, .pending_bar = 0, .pending_offset = 0x3000, .count = 4};
  const Region bar{.index = 0, .length = 0x8000, .mappable = true, .mappable_areas = {{0, 0x8000}}};
  EXPECT_EQ(mappable_for_guest(bar, 0x8000, msix, 0x1000), (Areas{{0, 0x2000}, {0x4000, 0x4000}}));
  EXPECT_EQ(mappable_for_guest(bar, 0x8000, msix, 0x4000), (Areas{{0x4000, 0x4000}}));
  EXPECT_EQ(mappable_for_guest(bar, 0x8000, msix, 0x10000), Areas{});
  Region other = bar;
  other.index = 1;
  EXPECT_EQ(mappable_for_guest(other, 0x8000, msix, 0x1000), (Areas{{0, 0x8000}}));
  Region sparse = bar;
  sparse.mappable_areas = {{0x4000, 0x1000}, {0, 0x1000}, {0x2000, 0x2000}};
  EXPECT_EQ(mappable_for_guest(sparse, 0x8000, msix, 0x1000), (Areas{{0, 0x1000}, {0x4000, 0x1000}}));
}

TEST(MappableForGuest, TakesTwoPlacesOut) {
  constexpr MsixLocation msix{
      .table_bar = 2, .table_offset = 0x5000, .pending_bar = 2, .pending_offset = 0x1800, .count = 300};
  const Region bar{.index = 2, .length = 0x8000, .mappable = true, .mappable_areas = {{0, 0x8000}}};
  EXPECT_EQ(mappable_for_guest(bar, 0x8000, msix, 0x1000), (Areas{{0, 0x1000}, {0x2000, 0x3000}, {0x7000, 0x1000}}));
}

TEST(MappableForGuest, EndsWhereTheGuestsBarDoes) {
  const Region bar{.index = 2, .length = 0x8000, .mappable = true, .mappable_areas = {{0, 0x4000}, {0x6000, 0x2000}}};
  EXPECT_EQ(mappable_for_guest(bar, 0x2000, {}, 0x1000), (Areas{{0, 0x2000}}));
  EXPECT_EQ(mappable_for_guest(bar, 0x10000, {}, 0x1000), (Areas{{0, 0x4000}, {0x6000, 0x2000}}));
  EXPECT_EQ(mappable_for_guest(bar, 0, {}, 0x1000), Areas{});
}

TEST(MappableForGuest, HasWholePages) {
  const Region small{.index = 0, .length = 0x100, .mappable = true, .mappable_areas = {{0, 0x100}}};
  EXPECT_EQ(mappable_for_guest(small, 0x100, {}, 0x1000), Areas{}) << "another BAR of the guest may share the page";
  EXPECT_EQ(mappable_for_guest(small, 0x1000, {}, 0x1000), (Areas{{0, 0x1000}}));
  const Region part{.index = 0, .length = 0x8000, .mappable = true, .mappable_areas = {{0, 0x1800}}};
  EXPECT_EQ(mappable_for_guest(part, 0x8000, {}, 0x1000), (Areas{{0, 0x1000}}));
}

}  // namespace msix_table_test
}  // namespace postern
