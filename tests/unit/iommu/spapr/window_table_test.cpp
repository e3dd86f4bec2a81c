// SPDX-License-Identifier: Apache-2.0
// WindowTable: the windows that may be requested, on machines as measured.
#include "iommu/spapr/window_table.hpp"

#include <gmock/gmock.h>
#include <rapidcheck/gtest.h>

#include <bit>
#include <cerrno>

#include "support/tree_kernel.hpp"

namespace postern::spapr {
namespace window_table_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t kib = 1024;
constexpr std::uint64_t mib = 1024 * kib;
constexpr std::uint64_t gib = 1024 * mib;

// The results of VFIO_IOMMU_SPAPR_TCE_GET_INFO on these machines (Linux 6.12).
constexpr vfio_iommu_spapr_tce_info pseries_info{
    .argsz = sizeof(vfio_iommu_spapr_tce_info),
    .flags = VFIO_IOMMU_SPAPR_INFO_DDW,
    .dma32_window_start = 0,
    .dma32_window_size = 0x40000000,
    .ddw = {.pgsizes = 0x1211000, .max_dynamic_windows_supported = 2, .levels = 1}};
constexpr vfio_iommu_spapr_tce_info powernv_info{
    .argsz = sizeof(vfio_iommu_spapr_tce_info),
    .flags = VFIO_IOMMU_SPAPR_INFO_DDW,
    .dma32_window_start = 0,
    .dma32_window_size = 0x80000000,
    .ddw = {.pgsizes = 0x40211000, .max_dynamic_windows_supported = 2, .levels = 5}};

WindowTable pseries() {
  WindowTable table(Platform::pseries, 4 * kib);
  table.begin(pseries_info);
  return table;
}
WindowTable powernv(std::uint64_t host_page = 4 * kib) {
  WindowTable table(Platform::powernv, host_page);
  table.begin(powernv_info);
  return table;
}

// Plans a window, and records that the kernel created it at `start`.
void make(WindowTable& table, const DmaWindowRequest& request, Iova start) {
  EXPECT_NE(table.add(table.plan(request).value(), start), nullptr);
}

std::string refusal(const WindowTable& table, const DmaWindowRequest& request, int code) {
  const auto plan = table.plan(request);
  EXPECT_FALSE(plan);
  if (plan) return "";
  EXPECT_EQ(plan.error().code(), code);
  return plan.error().message();
}

TEST(WindowTable, BeginsWithTheDefaultWindow) {
  const WindowTable table = pseries();
  ASSERT_EQ(table.list().size(), 1U);
  EXPECT_EQ(table.list()[0].range, (IovaRange{{0}, {gib - 1}}));
  EXPECT_EQ(table.list()[0].page_size, 4 * kib);
  EXPECT_FALSE(table.list()[0].created);
  EXPECT_EQ(table.holding({gib - 1}), &table.list()[0]);
  EXPECT_EQ(table.holding({gib}), nullptr);
}

TEST(WindowTable, AHostBridgeWithoutDynamicWindowsHasNoneToMake) {
  // Measured with ddw=off.
  vfio_iommu_spapr_tce_info info = pseries_info;
  info.ddw = {.pgsizes = 0, .max_dynamic_windows_supported = 0xffffffff, .levels = 0};
  WindowTable table(Platform::pseries, 4 * kib);
  table.begin(info);
  EXPECT_EQ(table.limits().levels, 0U);
  EXPECT_THAT(refusal(table, {.size = gib, .page_size = 4 * kib}, ENODEV), HasSubstr("no windows"));
}

TEST(WindowTable, APageSizeThatTheIommuHasNotIsRefusedAndThoseItHasAreNamed) {
  for (const std::uint64_t page : {std::uint64_t{0}, 3 * kib, 8 * kib, 16 * mib}) {
    EXPECT_THAT(refusal(powernv(), {.size = 64 * gib, .page_size = page}, EINVAL),
                HasSubstr("pages of 4 KiB, 64 KiB, 2 MiB, 1 GiB"));
  }
}

TEST(WindowTable, ASizeThatIsNoPowerOfTwoIsRefusedAndTheNextOneIsNamed) {
  EXPECT_THAT(refusal(pseries(), {.size = 3 * gib, .page_size = 4 * kib}, EINVAL), HasSubstr("request 4 GiB"));
  EXPECT_THAT(refusal(pseries(), {.size = 0, .page_size = 4 * kib}, EINVAL), HasSubstr("request 2 MiB"));
  EXPECT_THAT(refusal(pseries(), {.size = ~std::uint64_t{0}, .page_size = 4 * kib}, EINVAL),
              HasSubstr("request 8 EiB"));
}

TEST(WindowTable, AWindowThatTheKernelWouldMakeLargerIsTooSmall) {
  EXPECT_THAT(refusal(powernv(), {.size = mib, .page_size = 4 * kib}, EINVAL), HasSubstr("2 MiB"));
  EXPECT_TRUE(powernv().plan({.size = 2 * mib, .page_size = 4 * kib}));
  EXPECT_THAT(refusal(powernv(64 * kib), {.size = 16 * mib, .page_size = 4 * kib}, EINVAL), HasSubstr("32 MiB"));
}

// Measured for windows of 1 GiB: at most 4 levels on a kernel with 4 KiB pages; with 64 KiB pages 3, or 2 where the
// window's pages are 64 KiB too. The kernel always reports a limit of 5.
TEST(WindowTable, TablesAreNoDeeperThanTheKernelWasSeenToTake) {
  struct Measured {
    std::uint64_t host_page, page_size;
    std::uint32_t levels;
  };
  for (const auto& [host_page, page_size, levels] : {Measured{4 * kib, 4 * kib, 4}, Measured{4 * kib, 64 * kib, 4},
                                                     Measured{64 * kib, 4 * kib, 3}, Measured{64 * kib, 64 * kib, 2}}) {
    const WindowTable table = powernv(host_page);
    EXPECT_TRUE(table.plan({.size = gib, .page_size = page_size, .levels = levels})) << host_page << " " << page_size;
    EXPECT_THAT(refusal(table, {.size = gib, .page_size = page_size, .levels = levels + 1}, EINVAL),
                HasSubstr("too deep"));
  }
  EXPECT_THAT(refusal(pseries(), {.size = gib, .page_size = 4 * kib, .levels = 2}, EINVAL),
              AllOf(HasSubstr("too deep"), HasSubstr("to use 1")));
}

TEST(WindowTable, LevelsThatAreLeftOutKeepEachPartOfTheTableSmall) {
  EXPECT_EQ(powernv().plan({.size = 128 * mib, .page_size = 4 * kib})->levels, 1U);
  EXPECT_EQ(powernv().plan({.size = 8 * gib, .page_size = 4 * kib})->levels, 2U);
  EXPECT_EQ(pseries().plan({.size = 1024 * gib, .page_size = 64 * kib})->levels, 1U) << "it has one only";
}

TEST(WindowTable, APlanSaysToTheKernelWhatWasAskedFor) {
  const auto plan = powernv().plan({.size = 4 * gib, .page_size = 64 * kib, .levels = 3}).value();
  EXPECT_EQ(plan.argsz, sizeof plan);
  EXPECT_EQ(plan.page_shift, 16U);
  EXPECT_EQ(plan.window_size, 4 * gib);
  EXPECT_EQ(plan.levels, 3U);
}

TEST(WindowTable, MoreWindowsThanThereCanBeAreRefused) {
  WindowTable table = powernv();
  make(table, {.size = gib, .page_size = 4 * kib}, {std::uint64_t{1} << 59});
  EXPECT_THAT(refusal(table, {.size = gib, .page_size = 4 * kib}, ENOSPC), HasSubstr("remove one"));
  table.remove({0});
  EXPECT_TRUE(table.plan({.size = gib, .page_size = 4 * kib})) << "the bare machine has two of any kind";
  EXPECT_EQ(table.default_window(), nullptr);
}

TEST(WindowTable, UnderAHypervisorASecond64BitWindowIsRefusedEvenWithoutTheDefaultOne) {
  WindowTable table = pseries();
  make(table, {.size = gib, .page_size = 4 * kib}, {std::uint64_t{1} << 59});
  table.remove({0});
  EXPECT_THAT(refusal(table, {.size = gib, .page_size = 4 * kib}, ENOSPC), HasSubstr("rebooted"));
  table.remove({std::uint64_t{1} << 59});
  EXPECT_TRUE(table.plan({.size = gib, .page_size = 4 * kib}));
}

TEST(WindowTable, AWindowForMemoryIsTheSmallestThatFitsWithTheLargestPagesThatTheMemoryHas) {
  const auto small = pseries().request_for(5 * gib, 4 * kib);
  EXPECT_EQ(small.size, 8 * gib);
  EXPECT_EQ(small.page_size, 4 * kib);
  EXPECT_EQ(pseries().request_for(4 * gib, 2 * mib).page_size, 2 * mib);
  EXPECT_EQ(pseries().request_for(4 * gib, 1 * gib).page_size, 16 * mib);
  EXPECT_EQ(powernv().request_for(4 * gib, 16 * mib).page_size, 2 * mib);
  EXPECT_EQ(powernv().request_for(1, 4 * kib).size, 2 * mib) << "none is smaller";
  EXPECT_EQ(powernv().request_for(~std::uint64_t{0}, 4 * kib).size, std::uint64_t{1} << 63) << "none is larger";
}

RC_GTEST_PROP(WindowTable, WhateverIsAskedForAPlanIsOneThatTheKernelTakes, (std::uint64_t size, std::uint64_t page)) {
  const auto power = [](std::uint64_t seed, int bits) {
    return std::uint64_t{1} << (seed % static_cast<unsigned>(bits));
  };
  const WindowTable table = powernv();
  const DmaWindowRequest request{.size = size % 3 == 0 ? size : power(size, 60),
                                 .page_size = page % 3 == 0 ? page : power(page, 34),
                                 .levels = static_cast<std::uint32_t>(size % 7)};
  const auto plan = table.plan(request);
  if (!plan) return;
  RC_ASSERT(std::has_single_bit(plan->window_size));
  RC_ASSERT((powernv_info.ddw.pgsizes >> plan->page_shift & 1) == 1U);
  RC_ASSERT(plan->levels >= 1 && plan->levels <= powernv_info.ddw.levels);
  RC_ASSERT((plan->window_size >> plan->page_shift) >= 512U);
}

TEST(Platform, IsReadFromTheDeviceTree) {
  test::TreeKernel kernel;
  EXPECT_EQ(read_platform(kernel), Platform::pseries) << "where nothing is known, the narrower rules hold";
  kernel.file("/proc/device-tree/compatible", std::string("qemu,pseries\0", 13));
  EXPECT_EQ(read_platform(kernel), Platform::pseries);
  kernel.file("/proc/device-tree/compatible", std::string("qemu,powernv9\0ibm,powernv\0", 26));
  EXPECT_EQ(read_platform(kernel), Platform::powernv);
}

}  // namespace window_table_test
}  // namespace postern::spapr
