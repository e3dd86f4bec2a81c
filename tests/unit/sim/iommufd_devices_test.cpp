// SPDX-License-Identifier: Apache-2.0
// The simulated /dev/iommu with bound devices: the same results as Linux 7.3.4.
#include "unit/sim/iommufd_rig.hpp"

#include <linux/vfio.h>

#include <cstring>

namespace postern::sim {
namespace iommufd_devices_test {

using namespace iommufd_test;
using ::testing::ElementsAre;
using ::testing::Pair;

TEST_F(SimulatedIommufd, PinsWhenThereIsAPageTable) {
  const std::uint32_t a = ioas();
  Device& device = bound();
  EXPECT_EQ(map(a, va(0), 2 * page, 0x1000), 0);
  EXPECT_EQ(map(a, va(pages), page, 0x5000), 0);  // read-only memory, mapped for writing
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(attach(device, a), -EFAULT);
  EXPECT_EQ(hwpt(id_of(device), a), -EFAULT);
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(device.domain, nullptr);
  EXPECT_EQ(unmap(a, 0x5000, page), 0);
  EXPECT_EQ(map(a, va(0), 3, 0x8000), 0);
  EXPECT_EQ(attach(device, a), -EADDRINUSE);  // not a multiple of this IOMMU's page
  EXPECT_EQ(unmap(a, 0x8000, 3), 0);
  process_.memory_limit = page;
  EXPECT_EQ(attach(device, a), -ENOMEM);
  EXPECT_EQ(pinned(), 0);
  process_.memory_limit = 3 * page;
  EXPECT_EQ(attach(device, a), 0);
  EXPECT_EQ(hwpt_, 3);
  EXPECT_EQ(pinned(), 2);
  EXPECT_EQ(map(a, va(0), 2 * page, 0x10000), -ENOMEM);
  EXPECT_EQ(map(a, va(pages), 2 * page, 0x10000), -EFAULT);
  EXPECT_EQ(map(a, va(pages), page, 0x10000, read_only), 0);
  EXPECT_EQ(map(a, va(0), page + 1, 0x20000), -EINVAL);
  EXPECT_EQ(map(a, va(0), page, msi), -EINVAL);
  EXPECT_EQ(hwpt(id_of(device), a), 0);  // a second page table pins nothing
  EXPECT_EQ(pinned(), 3);
  EXPECT_EQ(destroy(hwpt_), 0);
  iommufd_->detach(device);  // the last
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(length_, 3 * page);
}

TEST_F(SimulatedIommufd, PinsMemoryOfCopiesOnce) {
  const std::uint32_t a = ioas();
  const std::uint32_t b = ioas();
  EXPECT_EQ(map(a, va(0), 8 * page, 0x100000), 0);
  EXPECT_EQ(copy(b, 0x200000, a, 0x102000, 4 * page), 0);
  EXPECT_EQ(copy(b, 0x300000, a, 0x104000, 4 * page), 0);
  EXPECT_EQ(attach(bound(1), b), 0);
  EXPECT_EQ(pinned(), 6);
  EXPECT_EQ(attach(bound(2), a), 0);
  EXPECT_EQ(pinned(), 8);
  EXPECT_EQ(unmap(a, 0x100000, 8 * page), 0);
  EXPECT_EQ(pinned(), 6);
  EXPECT_EQ(unmap(b, 0x200000, 4 * page), 0);
  EXPECT_EQ(pinned(), 4);
  EXPECT_EQ(copy(b, 0x400000, b, 0x301000, page), 0);
  EXPECT_EQ(unmap(b, 0x300000, 4 * page), 0);
  EXPECT_EQ(pinned(), 1);
  EXPECT_EQ(map(a, va(5), page, 0x500000), 0);  // the same memory, but not a copy
  EXPECT_EQ(pinned(), 2);
  EXPECT_EQ(map(a, va(pages), page, 0x501000, read_only), 0);
  EXPECT_EQ(copy(b, 0x500000, a, 0x500000, 2 * page), -EPERM);
  EXPECT_EQ(copy(b, 0x500000, a, 0x500000, 2 * page, read_only), 0);
  EXPECT_EQ(pinned(), 3);
}

TEST_F(SimulatedIommufd, MovesDevicesBetweenPageTables) {
  const std::uint32_t a = ioas();
  const std::uint32_t b = ioas();
  Device& first = bound(1);
  Device& second = bound(2);
  EXPECT_EQ(attach(first, a), 0);
  const std::uint32_t automatic = hwpt_;
  EXPECT_EQ(attach(second, a), 0);
  EXPECT_EQ(hwpt_, automatic);
  EXPECT_EQ(first.domain, second.domain);
  EXPECT_EQ(hwpt(id_of(first), b), 0);
  const std::uint32_t own = hwpt_;
  EXPECT_EQ(attach(first, own), 0);
  EXPECT_NE(first.domain, second.domain);
  EXPECT_THAT(ranges(b), ElementsAre(Pair(0, msi - 1), Pair(msi + 0x100000, 0x7fffffffff)));
  EXPECT_EQ(destroy(b), -EBUSY);
  EXPECT_EQ(destroy(own), -EBUSY);
  EXPECT_EQ(attach(second, b), 0);  // does not use one created explicitly
  EXPECT_NE(hwpt_, own);
  EXPECT_EQ(destroy(automatic), -ENOENT);
  EXPECT_EQ(map(a, va(0), page, msi), 0);
  EXPECT_EQ(attach(first, a), -EADDRINUSE);
  EXPECT_EQ(allow(a, {{0, most - 1}}), 0);
  EXPECT_EQ(hwpt(id_of(first), a), -EADDRINUSE);
  iommufd_->detach(first);
  iommufd_->detach(first);
  EXPECT_EQ(first.domain, nullptr);
  EXPECT_EQ(destroy(own), 0);
}

TEST_F(SimulatedIommufd, AttachesAGroupToOnePageTable) {
  const std::uint32_t a = ioas();
  const std::uint32_t b = ioas();
  Device& first = bound(7);
  EXPECT_EQ(attach(first, a), 0);
  Device& second = bound(7);
  EXPECT_EQ(second.domain, first.domain);
  EXPECT_TRUE(iommufd_->has_group(7));
  EXPECT_FALSE(iommufd_->has_group(8));
  EXPECT_EQ(attach(second, b), -EINVAL);
  EXPECT_EQ(attach(second, a), 0);
  EXPECT_EQ(attach(first, b), 0);
  EXPECT_EQ(second.domain, first.domain);
  EXPECT_EQ(ranges(a).size(), 1);
  EXPECT_EQ(map(a, va(0), page, msi), 0);
  EXPECT_EQ(attach(second, a), -EADDRINUSE);
  iommufd_->detach(first);
  EXPECT_NE(first.domain, nullptr);
  iommufd_->unbind(second);
  EXPECT_EQ(first.domain, nullptr);
  EXPECT_EQ(destroy(b), 0);
}

TEST_F(SimulatedIommufd, TellsVfioThatCachesAreCoherentWhereNoPageTableSaysOtherwise) {
  const auto is_coherent = [&] {
    return iommufd_->ioctl(VFIO_CHECK_EXTENSION, reinterpret_cast<void*>(VFIO_DMA_CC_IOMMU));
  };
  EXPECT_EQ(is_coherent(), -ENODEV);
  iommu_vfio_ioas given{0, ioas(), IOMMU_VFIO_IOAS_SET, 0};
  ASSERT_EQ(call(IOMMU_VFIO_IOAS, given), 0);
  EXPECT_EQ(is_coherent(), 1);
  ASSERT_EQ(attach(bound(), given.ioas_id), 0);
  EXPECT_EQ(is_coherent(), 0);
}

TEST_F(SimulatedIommufd, CombinesPagesUnlessTold) {
  EXPECT_EQ(option(IOMMU_OPTION_RLIMIT_MODE, 0, 0, 1), 0);
  EXPECT_EQ(option(IOMMU_OPTION_RLIMIT_MODE, 1, 0), 0);
  EXPECT_EQ(value_, 1);
  process_.memory_limit = page;
  EXPECT_EQ(option(IOMMU_OPTION_RLIMIT_MODE, 0, 0, 1), -EPERM);
  const std::uint32_t a = ioas();
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 0), 0);
  EXPECT_EQ(map(a, va(0), 100, 0), -EINVAL);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 1), 0);
  EXPECT_EQ(map(a, va(0), 100, 0), 0);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 0), -EADDRINUSE);
  EXPECT_EQ(unmap(a, 0, most), 0);
  EXPECT_EQ(attach(bound(), a), 0);
  EXPECT_EQ(map(a, va(0), page, 0), 0);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 0, a, 0), -EINVAL);
  EXPECT_EQ(option(IOMMU_OPTION_HUGE_PAGES, 1, a), 0);
  EXPECT_EQ(value_, 1);
}

TEST_F(SimulatedIommufd, TellsOfTheHardware) {
  iommu_.has_dirty_bits = true;
  std::array<iommu_hw_info_vtd, 2> vtd{};
  vtd[1].flags = 1;
  iommu_hw_info info{};
  info.dev_id = id_of(bound());
  info.data_len = sizeof vtd;
  info.data_uptr = reinterpret_cast<std::uintptr_t>(vtd.data());
  EXPECT_EQ(call(IOMMU_GET_HW_INFO, info), 0);
  EXPECT_EQ(info.out_data_type, IOMMU_HW_INFO_TYPE_INTEL_VTD);
  EXPECT_EQ(info.data_len, sizeof vtd[0]);
  EXPECT_EQ(info.out_capabilities, IOMMU_HW_CAP_DIRTY_TRACKING | IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED);
  EXPECT_EQ(vtd[0].cap_reg, 0xd2008c22260286);  // QEMU's: 39 bits, 2 MiB, 1 GiB
  EXPECT_EQ(vtd[1].flags, 0);
  info.flags = IOMMU_HW_INFO_FLAG_INPUT_TYPE;
  info.in_data_type = IOMMU_HW_INFO_TYPE_ARM_SMMUV3;
  EXPECT_EQ(call(IOMMU_GET_HW_INFO, info), -EOPNOTSUPP);
  info.flags = 0;
  info.data_uptr = 8;
  EXPECT_EQ(call(IOMMU_GET_HW_INFO, info), -EFAULT);
}

TEST_F(SimulatedIommufd, TellsWhatDevicesWrote) {
  iommu_.has_dirty_bits = true;
  const std::uint32_t a = ioas();
  Device& device = bound();
  EXPECT_EQ(hwpt(id_of(device), a, IOMMU_HWPT_ALLOC_DIRTY_TRACKING), 0);
  EXPECT_EQ(attach(device, hwpt_), 0);
  EXPECT_EQ(map(a, va(0), 4 * page, 0x10000), 0);
  EXPECT_EQ(map(a, va(4), 4 * page, 0x14000), 0);
  EXPECT_EQ(map(a, va(8), 4 * page, 0x20000), 0);
  const auto track = [&](std::uint32_t flags) {
    iommu_hwpt_set_dirty_tracking command{0, flags, hwpt_, 5};
    return call(IOMMU_HWPT_SET_DIRTY_TRACKING, command);
  };
  const auto write = [&](std::uint64_t iova) {
    const std::byte byte{1};
    return device.domain->write({iova}, std::span(&byte, 1));
  };
  std::uint64_t bits = 0;
  const auto get = [&](std::uint64_t iova, std::uint64_t length, std::uint32_t flags = 0, std::uint64_t size = page) {
    bits = 0;
    iommu_hwpt_get_dirty_bitmap command{0,    hwpt_,  flags, 0,
                                        iova, length, size,  reinterpret_cast<std::uintptr_t>(&bits)};
    return call(IOMMU_HWPT_GET_DIRTY_BITMAP, command);
  };
  constexpr std::uint32_t keep = IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR;
  EXPECT_EQ(track(2), -EOPNOTSUPP);
  EXPECT_EQ(track(IOMMU_HWPT_DIRTY_TRACKING_ENABLE), 0);
  for (const std::uint64_t iova : {0x10001UL, 0x13fffUL, 0x15000UL, 0x22000UL}) EXPECT_TRUE(write(iova));
  EXPECT_FALSE(write(0x18000));
  EXPECT_EQ(get(0x10000, 8 * page, keep), 0);
  EXPECT_EQ(bits, 0x29);
  EXPECT_EQ(get(0x10000, 8 * page, keep, 2 * page), 0);
  EXPECT_EQ(bits, 0x7);
  EXPECT_EQ(get(0x10000, 0x14000, keep), 0);  // with a hole, after which nothing is reported
  EXPECT_EQ(bits, 0x29);
  EXPECT_EQ(get(0x11000, 3 * page), 0);
  EXPECT_EQ(bits, 0x4);
  EXPECT_EQ(get(0x10000, 8 * page), 0);
  EXPECT_EQ(bits, 0x21);
  EXPECT_EQ(get(0x10000, 0), -EINVAL);
  EXPECT_EQ(get(0x10000, page, 0, 0), -EINVAL);
  EXPECT_EQ(get(0x10000, page, 0, 2 * page), -EINVAL);
  EXPECT_EQ(get(most - page + 1, 2 * page), -EOVERFLOW);
  EXPECT_EQ(get(0x10000, page, 2), -EOPNOTSUPP);
  EXPECT_EQ(track(0), 0);
  EXPECT_TRUE(write(0x23000));
  EXPECT_EQ(get(0x20000, 4 * page, keep), 0);
  EXPECT_EQ(bits, 0x4);  // from before
  EXPECT_EQ(unmap(a, 0x20000, 4 * page), 0);
  EXPECT_EQ(map(a, va(8), 4 * page, 0x20000), 0);
  EXPECT_EQ(get(0x20000, 4 * page), 0);
  EXPECT_EQ(bits, 0);
  EXPECT_EQ(hwpt(id_of(device), a), 0);
  EXPECT_EQ(track(IOMMU_HWPT_DIRTY_TRACKING_ENABLE), -EOPNOTSUPP);
  EXPECT_EQ(get(0x20000, 4 * page), -EOPNOTSUPP);
}

TEST_F(SimulatedIommufd, LetsDmaThroughByItsMappings) {
  const std::uint32_t a = ioas();
  Device& device = bound();
  EXPECT_EQ(attach(device, a), 0);
  EXPECT_EQ(map(a, va(1), page, 0x10000), 0);
  EXPECT_EQ(map(a, va(0), page, 0x11000, read_only), 0);
  std::array<std::byte, 8> bytes{std::byte{1}, std::byte{2}};
  EXPECT_TRUE(device.domain->write({0x10ff8}, bytes));
  EXPECT_EQ(std::memcmp(at(2) - 8, bytes.data(), 8), 0);
  EXPECT_FALSE(device.domain->write({0x11000}, bytes));
  EXPECT_TRUE(device.domain->read({0x10ffc}, bytes));
  EXPECT_FALSE(device.domain->read({0x11ffc}, bytes));
}

}  // namespace iommufd_devices_test
}  // namespace postern::sim
