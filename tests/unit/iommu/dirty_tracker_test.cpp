// SPDX-License-Identifier: Apache-2.0
// DirtyTracker on a fake iommufd whose written pages the test chooses: who tracks which device, and no page is lost.
#include <linux/vfio.h>

#include <postern/dirty_tracker.hpp>

#include <gmock/gmock.h>

#include <postern-sim/faults.hpp>
#include <postern/attach.hpp>
#include <set>

#include "iommu/device_log.hpp"
#include "support/iommufd_kernel.hpp"

namespace postern {
namespace dirty_tracker_test {

using test::IommufdKernel;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t pages = 256;
constexpr Iova base{0x100000};

class DirtyTracking : public ::testing::Test {
 protected:
  DirtyTracking() : memory_(pages * page + page) {
    auto* const address = memory_.data();
    const auto up = (page - reinterpret_cast<std::uintptr_t>(address) % page) % page;
    bytes_ = std::span(address + up, pages * page);
  }

  Device attach_device(IommufdKernel::Model model) {
    const std::size_t number = hosts_.size();
    hosts_.push_back(kernel_.add("0000:00:0" + std::to_string(number) + ".0", model));
    auto attached = attach(failing_, hosts_.back(), {.backend = "iommufd", .container = container_});
    EXPECT_TRUE(attached) << attached.error().message();
    container_ = attached->container();
    return std::move(*attached);
  }
  void map(Iova iova, std::uint64_t first, std::uint64_t count) {
    ASSERT_TRUE(container_->map(iova, bytes_.subspan(first * page, count * page)));
  }
  DirtyTracker& tracker() { return *container_->get<DirtyTracker>(); }

  // The numbers of the pages that a query reports.
  std::vector<std::uint64_t> query(Iova iova, std::uint64_t count, AfterQuery after = AfterQuery::clear,
                                   std::uint64_t page_size = page) {
    std::vector<std::uint64_t> words(DirtyBitmap::words_for(count * page, page_size));
    const auto answer = tracker().query({iova, iova + (count * page - 1)}, {page_size, words}, after);
    EXPECT_TRUE(answer) << answer.error().message();
    answer_ = answer.value_or(DirtyAnswer::everything);
    return marked(words);
  }
  static std::vector<std::uint64_t> marked(const std::vector<std::uint64_t>& words) {
    std::vector<std::uint64_t> numbers;
    for (std::uint64_t bit = 0; bit < words.size() * 64; ++bit) {
      if ((words[bit / 64] >> bit % 64 & 1) != 0) numbers.push_back(bit);
    }
    return numbers;
  }
  Error refused(IovaRange range, DirtyBitmap bitmap) {
    auto answer = tracker().query(range, bitmap);
    EXPECT_FALSE(answer);
    return answer ? Error({}) : answer.error();
  }
  void write(std::size_t device, std::uint64_t number) { kernel_.dma_write(device, base.value + number * page); }

  IommufdKernel kernel_;
  sim::FailingKernel failing_{kernel_};
  std::vector<HostDevice> hosts_;
  std::vector<std::byte> memory_;
  std::span<std::byte> bytes_;
  std::shared_ptr<Container> container_;
  DirtyAnswer answer_ = DirtyAnswer::everything;
};

TEST_F(DirtyTracking, TellsWhatTheIommuSawAndForgetsIt) {
  const Device device = attach_device({});
  map(base, 0, pages);
  write(0, 9);  // before the start
  ASSERT_TRUE(tracker().start());
  write(0, 3);
  write(0, 200);
  EXPECT_THAT(query(base, pages), ElementsAre(3, 200));
  EXPECT_EQ(answer_, DirtyAnswer::pages);
  EXPECT_THAT(query(base, pages), ElementsAre());
  ASSERT_TRUE(tracker().stop());
}

TEST_F(DirtyTracking, KeepsWhatItIsAskedToKeep) {
  const Device by_iommu = attach_device({});
  const Device by_itself = attach_device({.logs_itself = true});
  map(base, 0, pages);
  ASSERT_TRUE(tracker().start());
  write(0, 3);
  write(1, 5);
  EXPECT_THAT(query(base, pages, AfterQuery::keep), ElementsAre(3, 5));
  EXPECT_THAT(query(base, pages, AfterQuery::keep), ElementsAre(3, 5));
  EXPECT_THAT(query(base, pages), ElementsAre(3, 5));
  EXPECT_THAT(query(base, pages), ElementsAre());
}

TEST_F(DirtyTracking, MergesPageTablesAndDevices) {
  const Device a = attach_device({.iommu = 0});
  const Device b = attach_device({.iommu = 1});
  const Device c = attach_device({.iommu = 1, .logs_itself = true});
  EXPECT_EQ(kernel_.hwpts(), 2U);
  map(base, 0, pages);
  ASSERT_TRUE(tracker().start());
  write(0, 1);
  write(1, 70);
  write(2, 130);
  EXPECT_THAT(query(base, pages), ElementsAre(1, 70, 130));
}

TEST_F(DirtyTracking, LeavesBitsThatAreSetAlready) {
  const Device device = attach_device({});
  map(base, 0, 64);
  ASSERT_TRUE(tracker().start());
  write(0, 3);
  std::vector<std::uint64_t> words{1ULL << 40};
  ASSERT_TRUE(tracker().query({base, base + (64 * page - 1)}, {page, words}));
  EXPECT_THAT(marked(words), ElementsAre(3, 40));
}

TEST_F(DirtyTracking, TellsLargerPagesAndPartsOfMappings) {
  const Device device = attach_device({.logs_itself = true});
  map(base, 0, 100);
  map(base + 100 * page, 100, 156);
  ASSERT_TRUE(tracker().start());
  write(0, 17);
  write(0, 98);
  write(0, 103);
  EXPECT_THAT(query(base + 96 * page, 16), ElementsAre(2, 7));
  EXPECT_THAT(query(base, pages, AfterQuery::clear, 16 * page), ElementsAre(1));
}

TEST_F(DirtyTracking, ChoosesTheDeviceBeforeTheIommuBeforeNobody) {
  const Device a = attach_device({.iommu = 0, .logs_itself = true});
  const Device b = attach_device({.iommu = 0});
  const Device c = attach_device({.iommu = 1, .iommu_tracks = false});
  const auto devices = tracker().devices();
  EXPECT_EQ(devices[0].source, DirtySource::device);
  EXPECT_EQ(devices[1].source, DirtySource::iommu);
  EXPECT_EQ(devices[2].source, DirtySource::none);
  EXPECT_THAT(devices[2].note, HasSubstr("IOMMU_HW_CAP_DIRTY_TRACKING"));
}

// The kernel would also accept the second device on the page table without tracking.
TEST_F(DirtyTracking, ADeviceWhoseIommuTracksGetsAPageTableThatDoes) {
  const Device without = attach_device({.iommu_tracks = false});
  const Device with = attach_device({.iommu_tracks = true});
  EXPECT_EQ(kernel_.hwpts(), 2U);
  EXPECT_EQ(tracker().devices()[1].source, DirtySource::iommu);
}

TEST_F(DirtyTracking, SaysThatEverythingCountsAsWrittenWhereADeviceIsNotTracked) {
  const Device a = attach_device({.iommu = 0});
  Device b = attach_device({.iommu = 1, .iommu_tracks = false});
  map(base, 0, 70);
  ASSERT_TRUE(tracker().start());
  EXPECT_EQ(query(base, 70).size(), 70U);
  EXPECT_EQ(answer_, DirtyAnswer::everything);
  // Everything is reported once more after it has left, for its last writes; then the other's pages are reported
  // singly.
  ASSERT_TRUE(b.detach());
  EXPECT_EQ(query(base, 70).size(), 70U);
  EXPECT_EQ(answer_, DirtyAnswer::pages);
  write(0, 4);
  EXPECT_THAT(query(base, 70), ElementsAre(4));
}

TEST_F(DirtyTracking, ANamedSourceThatCannotBeHadIsRefusedWithEveryDevice) {
  const Device a = attach_device({.iommu = 0});
  const Device b = attach_device({.iommu = 1, .iommu_tracks = false});
  const Device c = attach_device({.iommu = 0, .logs_itself = true});
  auto by_device = tracker().start(DirtySource::device);
  ASSERT_FALSE(by_device);
  EXPECT_EQ(by_device.error().code(), EOPNOTSUPP);
  EXPECT_THAT(by_device.error().message(), AllOf(HasSubstr("0000:00:00.0"), HasSubstr("0000:00:01.0")));
  EXPECT_THAT(by_device.error().message(), Not(HasSubstr("0000:00:02.0")));
  EXPECT_FALSE(tracker().is_on());
  EXPECT_FALSE(kernel_.logging(2));
  auto by_iommu = tracker().start(DirtySource::iommu);
  ASSERT_FALSE(by_iommu);
  EXPECT_THAT(by_iommu.error().message(), HasSubstr("0000:00:01.0: its IOMMU has no dirty bits"));
  EXPECT_FALSE(kernel_.tracked(0));
}

TEST_F(DirtyTracking, ANamedSourceIsTaken) {
  const Device device = attach_device({.logs_itself = true});
  map(base, 0, pages);
  ASSERT_TRUE(tracker().start(DirtySource::iommu));
  EXPECT_TRUE(kernel_.tracked(0));
  EXPECT_FALSE(kernel_.logging(0));
  ASSERT_TRUE(tracker().stop());
  ASSERT_TRUE(tracker().start(DirtySource::device));
  EXPECT_FALSE(kernel_.tracked(0));
  EXPECT_TRUE(kernel_.logging(0));
}

TEST_F(DirtyTracking, AStartThatFailsSwitchesOffWhatItSwitchedOnAndNoMore) {
  const Device a = attach_device({.iommu = 0});
  const Device b = attach_device({.iommu = 1});
  const Device c = attach_device({.iommu = 2});
  const Device d = attach_device({.iommu = 0, .logs_itself = true});
  map(base, 0, pages);
  int switched = 0;
  std::vector<std::uint32_t> off;
  failing_.answer = [&](unsigned long request, void* argument, int result) {
    if (request != IOMMU_HWPT_SET_DIRTY_TRACKING) return result;
    const auto& set = *static_cast<iommu_hwpt_set_dirty_tracking*>(argument);
    if (set.flags == 0) off.push_back(set.hwpt_id);
    return ++switched == 3 ? -EIO : result;
  };
  const auto started = tracker().start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code(), EIO);
  EXPECT_THAT(started.error().message(), HasSubstr("IOMMU_HWPT_SET_DIRTY_TRACKING"));
  EXPECT_EQ(off.size(), 2U) << "the first two, not the third";
  EXPECT_FALSE(kernel_.tracked(0) || kernel_.tracked(1) || kernel_.logging(3));
  EXPECT_FALSE(tracker().is_on());
  failing_.answer = nullptr;
  EXPECT_TRUE(tracker().start());
}

TEST_F(DirtyTracking, ADeviceThatJoinsIsTrackedToo) {
  const Device a = attach_device({.iommu = 0});
  map(base, 0, pages);
  ASSERT_TRUE(tracker().start());
  const Device b = attach_device({.iommu = 1});
  const Device c = attach_device({.logs_itself = true});
  EXPECT_TRUE(kernel_.tracked(1) && kernel_.logging(2));
  write(1, 7);
  write(2, 8);
  EXPECT_THAT(query(base, pages), ElementsAre(7, 8));
}

TEST_F(DirtyTracking, ADeviceThatCannotBeTrackedAsNamedDoesNotJoin) {
  const Device a = attach_device({});
  ASSERT_TRUE(tracker().start(DirtySource::iommu));
  hosts_.push_back(kernel_.add("0000:00:01.0", {.iommu = 1, .iommu_tracks = false}));
  auto joined = attach(failing_, hosts_.back(), {.container = container_});
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code(), EOPNOTSUPP);
  EXPECT_THAT(container_->devices(), ElementsAre(::testing::Field(&HostDevice::name, "0000:00:00.0")));
  EXPECT_EQ(tracker().devices().size(), 1U);
}

TEST_F(DirtyTracking, WhatADeviceWroteBeforeItLeftIsTold) {
  const Device stays = attach_device({.iommu = 0});
  Device by_iommu = attach_device({.iommu = 1});
  Device by_itself = attach_device({.iommu = 1, .logs_itself = true});
  map(base, 0, pages);
  ASSERT_TRUE(tracker().start());
  write(0, 1);
  write(1, 2);
  write(2, 3);
  ASSERT_TRUE(by_itself.detach());
  ASSERT_TRUE(by_iommu.detach());
  EXPECT_THAT(query(base, pages), ElementsAre(1, 2, 3));
  EXPECT_THAT(query(base, pages), ElementsAre());
}

TEST_F(DirtyTracking, ADeviceThatLogsByItselfKnowsOnlyWhatWasMappedWhenItBegan) {
  const Device device = attach_device({.logs_itself = true});
  map(base, 0, 70);
  map(base + 100 * page, 100, 10);
  ASSERT_TRUE(tracker().start());
  ASSERT_EQ(kernel_.logged_ranges().size(), 2U);
  map(base + 70 * page, 70, 30);
  map(base + 110 * page, 110, 2);
  write(0, 5);
  write(0, 103);
  std::vector<std::uint64_t> expected{5};
  for (std::uint64_t number = 70; number < 100; ++number) expected.push_back(number);
  expected.insert(expected.end(), {103, 110, 111});
  EXPECT_EQ(query(base, 112), expected);
}

TEST_F(DirtyTracking, MoreRangesThanADeviceTakesAreJoinedToTheirNearest) {
  const Device device = attach_device({.logs_itself = true});
  for (std::uint64_t i = 0; i < 300; ++i) map(Iova{(i + 1) << 20} + (i % 2 == 0 ? 0 : 0xf0000 - (1 << 20)), i % 200, 1);
  ASSERT_TRUE(tracker().start());
  EXPECT_EQ(kernel_.logged_ranges().size(), 256U);
}

TEST_F(DirtyTracking, OfManyRangesTheWidestGapsStayGaps) {
  const Device device = attach_device({.logs_itself = true});
  // 60,000 mappings with gaps of one page, and a wider gap before every 240th: 250 pieces. The device takes 256, so six
  // of the small gaps stay.
  std::vector<Iova> pieces;
  Iova at = base;
  for (std::uint64_t i = 0; i < 60'000; ++i, at = at + 2 * page) {
    if (i % 240 == 0) {
      at = at + 0x100000 * (1 + i % 7);
      pieces.push_back(at);
    }
    map(at, 0, 1);
  }
  ASSERT_TRUE(tracker().start());
  const auto& logged = kernel_.logged_ranges();
  EXPECT_EQ(logged.size(), 256U);
  std::set<std::uint64_t> starts;
  for (const auto& range : logged) {
    EXPECT_TRUE(starts.insert(range.iova).second);
    EXPECT_LT(range.length, 480 * page) << "no wide gap was joined";
  }
  for (const Iova piece : pieces) EXPECT_TRUE(starts.contains(piece.value)) << to_string(piece);
  ASSERT_TRUE(tracker().stop());
}

TEST_F(DirtyTracking, WhatADeviceDoesNotLogCountsAsWrittenUpToTheLastPageOfAll) {
  const Device device = attach_device({.logs_itself = true});
  const Fd fd(kernel_, kernel_.open(hosts_[0].cdev->path.c_str(), 0));
  const std::string name = "it";
  DeviceLog log(fd, name);
  ASSERT_TRUE(log.start({{base, base + (page - 1)}}, page));
  std::uint64_t word = 0;
  ASSERT_TRUE(log.collect({.range = {{~(2 * page - 1)}, {~std::uint64_t{0}}}, .page_size = page, .bits = &word}));
  EXPECT_EQ(word, 3U);
  ASSERT_TRUE(log.stop());
}

TEST_F(DirtyTracking, AStopThatWasRefusedIsMadeUpForByTheNextStart) {
  const Device device = attach_device({.logs_itself = true});
  map(base, 0, 10);
  ASSERT_TRUE(tracker().start());
  failing_.fail_ioctl(VFIO_DEVICE_FEATURE, EINTR);
  EXPECT_EQ(tracker().stop().error().code(), EINTR);
  failing_.fail_ioctl(0, 0);
  int stops = 0;
  failing_.refuse = [&](unsigned long request, void* argument) {
    if (request != VFIO_DEVICE_FEATURE) return 0;
    const auto flags = static_cast<vfio_device_feature*>(argument)->flags;
    stops += (flags & VFIO_DEVICE_FEATURE_MASK) == VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP ? 1 : 0;
    return 0;
  };
  ASSERT_TRUE(tracker().start());
  EXPECT_EQ(stops, 1);
  failing_.refuse = nullptr;
  EXPECT_TRUE(tracker().stop());
}

TEST_F(DirtyTracking, AnUnmapReportsTheDirtyPagesOfItsRange) {
  const Device a = attach_device({.iommu = 0});
  const Device b = attach_device({.iommu = 1, .logs_itself = true});
  map(base, 0, 65);
  map(base + 70 * page, 70, 10);
  ASSERT_TRUE(tracker().start());
  write(0, 64);
  write(1, 72);
  write(0, 79);
  std::vector<std::uint64_t> words(2);
  const auto answer = tracker().unmap(base, 80 * page, {page, words});
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(*answer, DirtyAnswer::pages);
  EXPECT_THAT(marked(words), ElementsAre(64, 72, 79));
  EXPECT_EQ(container_->mapping_count(), 0U);
}

TEST_F(DirtyTracking, AnUnmapTellsWhatAQueryKept) {
  const Device device = attach_device({.logs_itself = true});
  map(base, 0, 10);
  ASSERT_TRUE(tracker().start());
  write(0, 4);
  EXPECT_THAT(query(base, 10, AfterQuery::keep), ElementsAre(4));
  std::vector<std::uint64_t> words(1);
  ASSERT_TRUE(tracker().unmap(base, 10 * page, {page, words}));
  EXPECT_THAT(marked(words), ElementsAre(4));
  map(base, 0, 10);
  write(0, 5);
  std::vector<std::uint64_t> again(1);
  ASSERT_TRUE(tracker().unmap(base, 10 * page, {page, again}));
  EXPECT_THAT(marked(again), ElementsAre(5));
}

TEST_F(DirtyTracking, AnUnmapThatFailsKeepsTheMappingAndItsPages) {
  const Device device = attach_device({.logs_itself = true});
  map(base, 0, 10);
  ASSERT_TRUE(tracker().start());
  write(0, 4);
  failing_.fail_ioctl(IOMMU_IOAS_UNMAP, EIO);
  std::vector<std::uint64_t> words(1);
  const auto refused = tracker().unmap(base, 10 * page, {page, words});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("IOMMU_IOAS_UNMAP"), HasSubstr("EIO")));
  EXPECT_EQ(container_->mapping_count(), 1U);
  failing_.fail_ioctl(0, 0);
  EXPECT_THAT(query(base, 10), ElementsAre(4));
}

// The kernel documents that the log is corrupt after an error.
TEST_F(DirtyTracking, AfterAQueryThatFailedEveryPageCountsAsWritten) {
  Device by_itself = attach_device({.iommu = 0, .logs_itself = true});
  Device by_iommu = attach_device({.iommu = 0});
  map(base, 0, 10);
  ASSERT_TRUE(tracker().start());
  for (const unsigned long request : {VFIO_DEVICE_FEATURE, IOMMU_HWPT_GET_DIRTY_BITMAP}) {
    failing_.fail_ioctl(request, ENODEV);
    std::vector<std::uint64_t> words(1);
    EXPECT_EQ(refused({base, base + (10 * page - 1)}, {page, words}).code(), ENODEV);
    failing_.fail_ioctl(0, 0);
    EXPECT_EQ(query(base, 10).size(), 10U);
    EXPECT_THAT(query(base, 10), ElementsAre());
  }
  // A device that dies while it is tracked can be detached.
  failing_.fail_ioctl(VFIO_DEVICE_FEATURE, ENODEV);
  EXPECT_TRUE(by_itself.detach());
  EXPECT_TRUE(tracker().is_on());
  EXPECT_EQ(query(base, 10).size(), 10U);
}

TEST_F(DirtyTracking, BadQueriesAreRefusedInWords) {
  const Device device = attach_device({});
  map(base, 0, 10);
  map(base + 12 * page, 12, 10);
  std::vector<std::uint64_t> words(4);
  const auto range = [](std::uint64_t first, std::uint64_t count) {
    return IovaRange{base + first * page, base + ((first + count) * page - 1)};
  };
  EXPECT_THAT(refused(range(0, 10), {page, words}).message(), HasSubstr("not on; start it first"));
  ASSERT_TRUE(tracker().start());
  const auto hole = refused(range(0, 20), {page, words});
  EXPECT_EQ(hole.code(), ENOENT);
  EXPECT_THAT(hole.message(), HasSubstr("nothing is mapped at 0x10a000"));
  EXPECT_EQ(refused(range(50, 1), {page, words}).code(), ENOENT);
  EXPECT_THAT(refused(range(0, 10), {2048, words}).message(), HasSubstr("at least 4 KiB"));
  EXPECT_THAT(refused(range(0, 10), {3 * page, words}).message(), HasSubstr("not a power of two"));
  EXPECT_THAT(refused(range(0, 10), {0, words}).message(), HasSubstr("not a power of two"));
  EXPECT_THAT(refused(range(0, 10), {4 * page, words}).message(), HasSubstr("multiples of the bitmap's page size"));
  EXPECT_THAT(refused({base + 1, base + page}, {page, words}).message(), HasSubstr("multiples"));
  EXPECT_THAT(refused({base, base - 1}, {page, words}).message(), HasSubstr("empty"));
  EXPECT_THAT(refused({base, base + 10 * page}, {page, words}).message(), HasSubstr("ends with its last address"));
  const auto inverted = refused({base, {page}}, {page, words});
  EXPECT_EQ(inverted.code(), EINVAL);
  EXPECT_THAT(inverted.message(),
              HasSubstr("0x100000-0x1000: last is below first; ranges end with their last address"));
  EXPECT_THAT(refused(range(0, 10), {page, {}}).message(), HasSubstr("has 0 words, and this range needs 1"));
  EXPECT_THAT(query(base, 10), ElementsAre());
  std::vector<std::uint64_t> bits(1);
  EXPECT_THAT(tracker().unmap(base, page, {page, bits}).error().message(), HasSubstr("it would split the mapping"));
  EXPECT_EQ(tracker().unmap(base + 10 * page, 2 * page, {page, bits}).error().code(), ENOENT);
}

TEST_F(DirtyTracking, StartsAndStopsOnce) {
  {
    Device device = attach_device({});
    EXPECT_EQ(tracker().stop().error().code(), EINVAL);
    ASSERT_TRUE(tracker().start());
    const auto again = tracker().start();
    EXPECT_EQ(again.error().code(), EBUSY);
    EXPECT_THAT(again.error().message(), HasSubstr("it is already on; stop dirty tracking first"));
    ASSERT_TRUE(tracker().stop());
    EXPECT_EQ(tracker().stop().error().code(), EINVAL);
    ASSERT_TRUE(device.detach());
  }
  EXPECT_EQ(tracker().start().error().code(), ENODEV);
}

TEST_F(DirtyTracking, AStopThatFailsIsOffEvenSo) {
  const Device a = attach_device({.iommu = 0});
  const Device b = attach_device({.iommu = 1});
  ASSERT_TRUE(tracker().start());
  failing_.fail_ioctl(IOMMU_HWPT_SET_DIRTY_TRACKING, EIO);
  EXPECT_EQ(tracker().stop().error().code(), EIO);
  failing_.fail_ioctl(0, 0);
  EXPECT_FALSE(tracker().is_on());
  EXPECT_TRUE(tracker().start());
}

}  // namespace dirty_tracker_test
}  // namespace postern
