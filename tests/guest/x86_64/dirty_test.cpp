// SPDX-License-Identifier: Apache-2.0
// Dirty tracking on the real kernel: type1's log, and the dirty bits of iommufd's page tables behind its mock IOMMU.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <cstring>
#include <postern-nvme/controller.hpp>
#include <postern/dirty_tracker.hpp>

#include "guest/x86_64/devices.hpp"
#include "guest/x86_64/mock_devices.hpp"

namespace postern {
namespace dirty_test {

using test::Bound;
using test::ResourceUse;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

Mmap memory(std::uint64_t length) {
  return {system_kernel(), ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), length};
}

IovaRange range(std::uint64_t first, std::uint64_t count) {
  return {base + first * page, base + ((first + count) * page - 1)};
}

std::vector<std::uint64_t> marked(const std::vector<std::uint64_t>& words) {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t bit = 0; bit < words.size() * 64; ++bit) {
    if ((words[bit / 64] >> bit % 64 & 1) != 0) numbers.push_back(bit);
  }
  return numbers;
}

// The pages that a query marks.
std::vector<std::uint64_t> query(DirtyTracker& tracker, IovaRange asked, AfterQuery after = AfterQuery::clear,
                                 std::uint64_t page_size = page) {
  std::vector<std::uint64_t> words(DirtyBitmap::words_for(asked.length(), page_size));
  const auto answer = tracker.query(asked, {page_size, words}, after);
  EXPECT_TRUE(answer) << answer.error().message();
  return marked(words);
}

// Counts the dirty-log calls, and can lower the largest bitmap that the kernel reports.
class Watching : public sim::FailingKernel {
 public:
  Watching() : FailingKernel(system_kernel()) {
    answer = [this](unsigned long request, void* argument, int result) {
      if (request == VFIO_IOMMU_DIRTY_PAGES) ++dirty_calls;
      if (request == VFIO_IOMMU_UNMAP_DMA && result == 0) {
        unmap_flags.push_back(static_cast<vfio_iommu_type1_dma_unmap*>(argument)->flags);
      }
      if (request == VFIO_IOMMU_GET_INFO && largest_bitmap != 0) limit(argument);
      return result;
    };
  }
  int dirty_calls = 0;
  std::vector<std::uint32_t> unmap_flags;
  std::uint64_t largest_bitmap = 0;  // reported as the kernel's limit, if not 0

 private:
  void limit(void* argument) const {
    auto* const info = static_cast<vfio_iommu_type1_info*>(argument);
    for (std::uint32_t offset = info->cap_offset; offset != 0 && info->argsz > sizeof *info;) {
      auto* const header = reinterpret_cast<vfio_info_cap_header*>(static_cast<char*>(argument) + offset);
      if (header->id == VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION) {
        reinterpret_cast<vfio_iommu_type1_info_cap_migration*>(header)->max_dirty_bitmap_size = largest_bitmap;
      }
      offset = header->next;
    }
  }
};

class Type1Dirty : public ::testing::Test {
 protected:
  Type1Dirty()
      : bound_(test::nvme_disk),
        before_(ResourceUse::now()),
        memory_(memory(pages * page)),
        device_(attach(kernel_, bound_.host(), {.backend = "type1"}).value()) {}
  ~Type1Dirty() override {
    EXPECT_TRUE(device_.detach());
    memory_ = {};
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }
  Container& container() { return *device_.container(); }
  DirtyTracker& tracker() { return *container().get<DirtyTracker>(); }
  void map(std::uint64_t first, std::uint64_t count) {
    ASSERT_TRUE(container().map(base + first * page, memory_.bytes().subspan(first * page, count * page)));
  }

  static constexpr std::uint64_t pages = 200;
  Watching kernel_;
  Bound bound_;
  ResourceUse before_;
  Mmap memory_;
  Device device_;
};

// vfio_iommu_type1 does not know what a device behind an IOMMU wrote, and reports every page.
TEST_F(Type1Dirty, CountsEveryPageOfADeviceWithAnIommu) {
  map(0, 10);
  map(10, 70);
  ASSERT_TRUE(tracker().start());
  EXPECT_EQ(query(tracker(), range(0, 80)).size(), 80U);
  EXPECT_EQ(query(tracker(), range(0, 80)).size(), 80U);
  EXPECT_EQ(query(tracker(), range(0, 64), AfterQuery::clear, 16 * page).size(), 4U);
  const auto devices = tracker().devices();
  ASSERT_EQ(devices.size(), 1U);
  EXPECT_EQ(devices[0].source, DirtySource::iommu);
  EXPECT_THAT(devices[0].note, HasSubstr("every mapped page dirty"));
  ASSERT_TRUE(tracker().stop());
}

// The kernel rejects a range that contains only part of a mapping.
TEST_F(Type1Dirty, TellsPartsOfMappings) {
  map(0, 100);
  map(100, 100);
  ASSERT_TRUE(tracker().start());
  EXPECT_EQ(query(tracker(), range(3, 1)).size(), 1U);
  EXPECT_EQ(query(tracker(), range(90, 20)).size(), 20U);
}

TEST_F(Type1Dirty, AsksInPiecesThatTheKernelTakes) {
  kernel_.largest_bitmap = 8;  // 64 pages
  for (std::uint64_t first = 0; first < pages; first += 20) map(first, 20);
  ASSERT_TRUE(tracker().start());
  kernel_.dirty_calls = 0;
  EXPECT_EQ(query(tracker(), range(0, pages)).size(), pages);
  EXPECT_EQ(kernel_.dirty_calls, 4) << "three mappings a call";
}

TEST_F(Type1Dirty, UnmapsAndTellsInOneCall) {
  map(0, 10);
  map(30, 10);
  ASSERT_TRUE(tracker().start());
  std::vector<std::uint64_t> words(1);
  kernel_.dirty_calls = 0;
  const auto answer = tracker().unmap(base, 40 * page, {page, words});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(words[0], 0xffc00003ffULL);
  EXPECT_EQ(kernel_.dirty_calls, 0);
  EXPECT_THAT(kernel_.unmap_flags,
              ElementsAre(VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP, VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP));
  EXPECT_EQ(container().mapping_count(), 0U);
  EXPECT_TRUE(container().map(base, memory_.bytes()));
}

TEST_F(Type1Dirty, GoesOnWhenTheLastDeviceLeavesAndAnotherComes) {
  map(0, 70);
  ASSERT_TRUE(tracker().start());
  const auto shared = device_.container();
  ASSERT_TRUE(device_.detach());
  EXPECT_TRUE(shared->get<DirtyTracker>()->is_on());
  EXPECT_EQ(query(*shared->get<DirtyTracker>(), range(0, 70)).size(), 70U);
  EXPECT_THAT(query(*shared->get<DirtyTracker>(), range(0, 70)), ElementsAre()) << "nobody is there who could write";
  device_ = attach(kernel_, bound_.host(), {.container = shared}).value();
  EXPECT_EQ(query(*shared->get<DirtyTracker>(), range(0, 70)).size(), 70U);
  map(70, 10);
  EXPECT_EQ(query(*shared->get<DirtyTracker>(), range(0, 80)).size(), 80U);
  ASSERT_TRUE(shared->get<DirtyTracker>()->stop());
}

TEST_F(Type1Dirty, RefusesWhatTheKernelWouldRefuseInWords) {
  map(0, 10);
  map(12, 10);
  std::vector<std::uint64_t> words(4);
  const auto refused = [&](IovaRange asked, std::uint64_t page_size) {
    return tracker().query(asked, {page_size, words}).error();
  };
  EXPECT_THAT(refused(range(0, 10), page).message(), HasSubstr("dirty tracking is not on"));
  EXPECT_EQ(tracker().stop().error().code(), EINVAL);
  ASSERT_TRUE(tracker().start());
  EXPECT_EQ(tracker().start().error().code(), EBUSY);
  EXPECT_THAT(refused(range(0, 20), page).message(), HasSubstr("nothing is mapped at 0x1000a000"));
  EXPECT_EQ(refused(range(100, 1), page).code(), ENOENT);
  EXPECT_EQ(refused(range(0, 10), 512).code(), EINVAL);
  EXPECT_EQ(refused(range(0, 10), 1 << 20).code(), EINVAL);
}

TEST(Type1Version1, HasNoDirtyTracker) {
  const Bound bound(test::nvme_disk);
  const Device device =
      attach(system_kernel(), bound.host(), {.backend = "type1", .container_options = {.version = 1}}).value();
  EXPECT_EQ(device.container()->get<DirtyTracker>(), nullptr);
}

// QEMU's VT-d has no dirty bits.
TEST(IommufdWithoutDirtyBits, SaysThatEverythingCountsAsWritten) {
  const Bound bound(test::nvme_disk);
  const Device device = attach(system_kernel(), bound.host(), {.backend = "iommufd"}).value();
  const Mmap bytes = memory(10 * page);
  ASSERT_TRUE(device.container()->map(base, bytes.bytes()));
  DirtyTracker& tracker = *device.container()->get<DirtyTracker>();
  EXPECT_THAT(tracker.devices()[0].note, HasSubstr("no dirty bits"));
  const auto named = tracker.start(DirtySource::iommu);
  ASSERT_FALSE(named);
  EXPECT_EQ(named.error().code(), EOPNOTSUPP);
  ASSERT_TRUE(tracker.start());
  std::vector<std::uint64_t> words(1);
  const auto answer = tracker.query(range(0, 10), {page, words});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(*answer, DirtyAnswer::everything);
  EXPECT_EQ(words[0], 0x3ffU);
}

class MockIommu : public ::testing::Test {
 protected:
  MockIommu() : memory_(memory(pages * page)) {}
  ~MockIommu() override {
    devices_.clear();
    container_.reset();
    memory_ = {};
    EXPECT_EQ(kernel_.open_files(), 0) << "something was left open";
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }
  HostDevice attach_mock(bool has_dirty_bits, bool apart = false) {
    HostDevice host = kernel_.add("mock" + std::to_string(devices_.size()), has_dirty_bits, apart);
    auto device =
        attach(kernel_, host,
               {.backend = "iommufd", .container = container_, .container_options = {.huge_pages = huge_pages_}});
    EXPECT_TRUE(device) << device.error().message();
    container_ = device->container();
    devices_.push_back(std::move(*device));
    return host;
  }
  void map(std::uint64_t first, std::uint64_t count) {
    const auto mapped = container_->map(base + first * page, memory_.bytes().subspan(first * page, count * page));
    ASSERT_TRUE(mapped) << mapped.error().message();
  }
  void write(const HostDevice& host, std::uint64_t number) { kernel_.write(host, base + number * page); }
  DirtyTracker& tracker() { return *container_->get<DirtyTracker>(); }

  static constexpr std::uint64_t pages = 1024;
  HugePages huge_pages_ = HugePages::avoid;  // each page-table entry has one dirty bit, whatever its size
  ResourceUse before_ = ResourceUse::now();
  test::MockDevices kernel_;
  Mmap memory_;
  std::shared_ptr<Container> container_;
  std::vector<Device> devices_;
};

TEST_F(MockIommu, TellsThePagesThatWereWrittenAndForgetsThem) {
  const HostDevice device = attach_mock(true);
  map(0, pages);
  ASSERT_TRUE(tracker().start());
  for (const std::uint64_t number : {0, 3, 63, 64, 700, 1023}) write(device, number);
  EXPECT_THAT(query(tracker(), range(0, pages)), ElementsAre(0, 3, 63, 64, 700, 1023));
  EXPECT_THAT(query(tracker(), range(0, pages)), ElementsAre());
}

TEST_F(MockIommu, IgnoresWritesBeforeTheStart) {
  const HostDevice device = attach_mock(true);
  map(0, pages);
  ASSERT_TRUE(tracker().start());
  write(device, 5);
  ASSERT_TRUE(tracker().stop());
  ASSERT_TRUE(tracker().start());
  EXPECT_THAT(query(tracker(), range(0, pages)), ElementsAre());
}

TEST_F(MockIommu, TellsALargePageAsAWhole) {
  huge_pages_ = HugePages::use;
  const HostDevice device = attach_mock(true);
  std::memset(memory_.bytes().data(), 1, memory_.bytes().size());
  map(0, pages);
  ASSERT_TRUE(tracker().start());
  write(device, 700);
  EXPECT_THAT(query(tracker(), range(0, pages)), Contains(700));
  EXPECT_THAT(query(tracker(), range(0, pages)), ElementsAre());
}

TEST_F(MockIommu, KeepsWhatItIsAskedToKeep) {
  const HostDevice device = attach_mock(true);
  map(0, 100);
  map(100, 100);
  ASSERT_TRUE(tracker().start());
  write(device, 99);
  write(device, 100);
  EXPECT_THAT(query(tracker(), range(90, 20), AfterQuery::keep), ElementsAre(9, 10));
  EXPECT_THAT(query(tracker(), range(90, 20)), ElementsAre(9, 10));
  EXPECT_THAT(query(tracker(), range(90, 20)), ElementsAre());
}

TEST_F(MockIommu, MergesSeveralPageTables) {
  const HostDevice a = attach_mock(true);
  const HostDevice b = attach_mock(true, true);
  const HostDevice c = attach_mock(true, true);
  map(0, pages);
  ASSERT_TRUE(tracker().start());
  write(a, 1);
  write(b, 1);
  write(b, 512);
  write(c, 513);
  EXPECT_THAT(query(tracker(), range(0, pages)), ElementsAre(1, 512, 513));
  write(b, 16);
  write(c, 33);
  EXPECT_THAT(query(tracker(), range(0, pages), AfterQuery::clear, 16 * page), ElementsAre(1, 2));
}

TEST_F(MockIommu, AnUnmapReportsDirtyPagesBeforeThePageTablesLoseThem) {
  const HostDevice a = attach_mock(true);
  const HostDevice b = attach_mock(true, true);
  map(0, 10);
  map(20, 10);
  ASSERT_TRUE(tracker().start());
  write(a, 9);
  write(b, 20);
  std::vector<std::uint64_t> words(1);
  const auto answer = tracker().unmap(base, 30 * page, {page, words});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_THAT(marked(words), ElementsAre(9, 20));
  EXPECT_EQ(container_->mapping_count(), 0U);
}

TEST_F(MockIommu, WhatADeviceWroteBeforeItLeftIsTold) {
  const HostDevice a = attach_mock(true);
  const HostDevice b = attach_mock(true, true);
  map(0, 10);
  ASSERT_TRUE(tracker().start());
  write(a, 1);
  write(b, 2);
  ASSERT_TRUE(devices_[1].detach());
  EXPECT_THAT(query(tracker(), range(0, 10)), ElementsAre(1, 2));
  const HostDevice late = attach_mock(true, true);
  write(late, 3);
  EXPECT_THAT(query(tracker(), range(0, 10)), ElementsAre(3));
}

TEST_F(MockIommu, ADeviceWithoutDirtyBitsMakesEverythingCount) {
  const HostDevice a = attach_mock(true);
  const HostDevice b = attach_mock(false);
  map(0, 10);
  EXPECT_EQ(tracker().devices()[0].source, DirtySource::iommu);
  EXPECT_EQ(tracker().devices()[1].source, DirtySource::none);
  ASSERT_TRUE(tracker().start());
  std::vector<std::uint64_t> words(1);
  EXPECT_EQ(tracker().query(range(0, 10), {page, words}).value(), DirtyAnswer::everything);
  ASSERT_TRUE(devices_[1].detach());
  EXPECT_EQ(query(tracker(), range(0, 10)).size(), 10U) << "what it wrote last";
  write(a, 7);
  EXPECT_THAT(query(tracker(), range(0, 10)), ElementsAre(7));
}

TEST_F(MockIommu, AStartThatFailsLeavesNoPageTableOn) {
  const HostDevice first = attach_mock(true);
  attach_mock(true, true);
  map(0, 10);
  int calls = 0;
  kernel_.answer = [&](unsigned long request, void* argument, int result) {
    if (request != IOMMU_HWPT_SET_DIRTY_TRACKING) return result;
    return static_cast<iommu_hwpt_set_dirty_tracking*>(argument)->flags != 0 && ++calls == 2 ? -EIO : result;
  };
  const auto started = tracker().start();
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().message(), HasSubstr("IOMMU_HWPT_SET_DIRTY_TRACKING: EIO"));
  kernel_.answer = nullptr;
  EXPECT_ANY_THROW(write(first, 1)) << "the kernel marks pages where dirty tracking is on";
  ASSERT_TRUE(tracker().start());
  EXPECT_THAT(query(tracker(), range(0, 10)), ElementsAre());
}

TEST_F(MockIommu, AHoleIsRefusedBeforeTheKernelTakesItForASuccess) {
  const HostDevice device = attach_mock(true);
  map(0, 10);
  map(12, 10);
  ASSERT_TRUE(tracker().start());
  write(device, 15);
  std::vector<std::uint64_t> words(1);
  const auto refused = tracker().query(range(0, 22), {page, words});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOENT);
  EXPECT_THAT(query(tracker(), range(12, 10)), ElementsAre(3));
}

}  // namespace dirty_test
}  // namespace postern
