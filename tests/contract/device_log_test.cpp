// SPDX-License-Identifier: Apache-2.0
// DirtyTracker with a device that logs its own writes, on the kernel under test, for each backend.
#include <gmock/gmock.h>

#include <postern/dirty_tracker.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/iova_allocator.hpp>

#include "support/edu.hpp"
#include "support/host_devices.hpp"

namespace postern {
namespace device_log_test {

using test::EduRegisters;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t pages = 64;

class DeviceLogOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  void SetUp() override {
    const auto address = test::find_function(0x1234, 0x11e9);
    if (!address) GTEST_SKIP() << "no device of this host logs its DMA: that takes a driver of its own";
    bound_.emplace(*address, test::kernel(), "edu-vfio-pci");
    auto device = attach(test::kernel(), bound_->host(), test::options_for(GetParam()));
    ASSERT_TRUE(device) << device.error().message();
    pci_.emplace(PciDevice::open(std::move(*device)).value());
    ASSERT_TRUE(pci_->enable_bus_master());
    edu_.emplace(pci_->device());
    const auto container = pci_->device().container();
    tracker_ = container->get<DirtyTracker>();
    if (tracker_ == nullptr) GTEST_SKIP() << "this backend tracks nothing";
    iovas_.emplace(clip_to_address_bits(container->usable_ranges(), EduRegisters::address_bits),
                   container->page_sizes());
    buffer_.emplace(DmaBuffer::allocate(container, *iovas_, pages * page).value());
  }

  void write_page(std::uint64_t number, std::uint32_t count = 8) {
    edu_->copy(EduRegisters::buffer, buffer_->iova().value + number * page, count, EduRegisters::to_memory);
  }
  std::uint64_t query(AfterQuery after = AfterQuery::clear) {
    std::uint64_t word = 0;
    const auto answer =
        tracker_->query({buffer_->iova(), buffer_->iova() + (pages * page - 1)}, {page, std::span(&word, 1)}, after);
    EXPECT_TRUE(answer) << answer.error().message();
    EXPECT_EQ(answer.value_or(DirtyAnswer::everything), DirtyAnswer::pages);
    return word;
  }

  std::optional<test::Bound> bound_;
  std::optional<PciDevice> pci_;
  std::optional<EduRegisters> edu_;
  DirtyTracker* tracker_ = nullptr;
  std::optional<IovaAllocator> iovas_;
  std::optional<DmaBuffer> buffer_;
};

TEST_P(DeviceLogOnKernel, TheDeviceIsAskedBeforeTheIommu) {
  const auto devices = tracker_->devices();
  ASSERT_EQ(devices.size(), 1U);
  EXPECT_EQ(devices[0].source, DirtySource::device);
}

TEST_P(DeviceLogOnKernel, TellsExactlyThePagesThatTheDeviceWrote) {
  write_page(1);
  ASSERT_TRUE(tracker_->start(DirtySource::device));
  EXPECT_EQ(query(), 0U) << "what came before does not count";
  write_page(3);
  write_page(17, 4096);
  write_page(63);
  edu_->copy(buffer_->iova().value + 5 * page, EduRegisters::buffer, 64, 0);
  EXPECT_EQ(query(), std::uint64_t{1} << 3 | std::uint64_t{1} << 17 | std::uint64_t{1} << 63);
  EXPECT_EQ(query(), 0U) << "it was told";
  write_page(0);
  EXPECT_TRUE(tracker_->stop());
}

TEST_P(DeviceLogOnKernel, WhatIsToBeKeptIsToldAgain) {
  ASSERT_TRUE(tracker_->start());
  write_page(9);
  EXPECT_EQ(query(AfterQuery::keep), std::uint64_t{1} << 9);
  write_page(10);
  EXPECT_EQ(query(), std::uint64_t{3} << 9);
  EXPECT_EQ(query(), 0U);
  EXPECT_TRUE(tracker_->stop());
}

TEST_P(DeviceLogOnKernel, AfterADeviceThatWroteHasLeftItsPagesAreTold) {
  const auto container = pci_->device().container();
  ASSERT_TRUE(tracker_->start());
  write_page(33);
  ASSERT_TRUE(pci_->device().detach());
  EXPECT_EQ(query(), std::uint64_t{1} << 33);
  EXPECT_TRUE(tracker_->stop());
}

INSTANTIATE_TEST_SUITE_P(Backends, DeviceLogOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace device_log_test
}  // namespace postern
