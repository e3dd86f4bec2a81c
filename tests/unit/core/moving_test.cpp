// SPDX-License-Identifier: Apache-2.0
// Devices that move from one container to another, on a fake iommufd: what the kernel is asked, limits, dirty pages,
// and what happens where a call fails.
#include <gmock/gmock.h>
#include <linux/vfio.h>

#include <numeric>
#include <postern-sim/faults.hpp>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>

#include "support/iommufd_kernel.hpp"

namespace postern {
namespace moving_test {

using test::IommufdKernel;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t page = 4096;
constexpr std::uint64_t pages = 64;
constexpr Iova base{0x10000000};
std::vector<std::uint64_t> all_pages() {
  std::vector<std::uint64_t> numbers(pages);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

class Moving : public ::testing::Test {
 protected:
  Moving() {
    failing_.answer = [this](unsigned long request, void* argument, int result) {
      if (request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) ++attaches_;
      if (request == VFIO_DEVICE_DETACH_IOMMUFD_PT) ++detaches_;
      return answer_ ? answer_(request, argument, result) : result;
    };
  }

  HostDevice host(IommufdKernel::Model model) {
    return kernel_.add("0000:00:0" + std::to_string(count_++) + ".0", model);
  }
  // In a new container.
  Device attach_alone(IommufdKernel::Model model) {
    auto attached = attach(failing_, host(model), {.backend = "iommufd"});
    EXPECT_TRUE(attached) << attached.error().message();
    return std::move(*attached);
  }
  std::shared_ptr<Container> open() { return Container::open(failing_, *find_backend("iommufd").value()).value(); }
  [[nodiscard]] std::span<std::byte> bytes(std::uint64_t length = pages * page) {
    auto* const aligned = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory_.data()) + 0xffff) &
                                                       ~std::uintptr_t{0xffff});
    return {aligned, length};
  }
  // The numbers of the pages that a query of `pages` pages from `base` on reports.
  static std::vector<std::uint64_t> query(Container& container) {
    std::uint64_t word = 0;
    const auto answer =
        container.get<DirtyTracker>()->query({base, base + (pages * page - 1)}, {page, std::span(&word, 1)});
    EXPECT_TRUE(answer) << answer.error().message();
    std::vector<std::uint64_t> numbers;
    for (std::uint64_t bit = 0; bit < pages; ++bit) {
      if ((word >> bit & 1) != 0) numbers.push_back(bit);
    }
    return numbers;
  }
  void write(std::size_t device, std::uint64_t number) { kernel_.dma_write(device, base.value + number * page); }
  static std::vector<std::string> names(const Container& container) {
    std::vector<std::string> names;
    for (const HostDevice& device : container.devices()) names.push_back(device.name);
    return names;
  }
  // Both containers map the same iovas, and track.
  void track_in(const std::shared_ptr<Container>& container) {
    ASSERT_TRUE(container->map(base, bytes()));
    ASSERT_TRUE(container->get<DirtyTracker>()->start());
  }

  IommufdKernel kernel_;
  sim::FailingKernel failing_{kernel_};
  std::vector<std::byte> memory_ = std::vector<std::byte>(1 << 20);
  std::function<int(unsigned long, void*, int)> answer_;
  int count_ = 0;
  int attaches_ = 0;
  int detaches_ = 0;
};

TEST_F(Moving, IsOneCallOfTheKernel) {
  Device device = attach_alone({});
  const auto old = device.container();
  const auto fresh = open();
  attaches_ = 0;
  const auto moved = move_device(device, fresh);
  ASSERT_TRUE(moved) << moved.error().message();
  EXPECT_EQ(attaches_, 1);
  EXPECT_EQ(detaches_, 0);
  EXPECT_EQ(device.container(), fresh);
  EXPECT_THAT(names(*old), IsEmpty());
  EXPECT_THAT(names(*fresh), ElementsAre(device.name()));
  EXPECT_EQ(kernel_.hwpts(), 1U) << "the page table that it left is gone";
  EXPECT_TRUE(old->close());
  EXPECT_TRUE(fresh->map(base, bytes()));
  EXPECT_EQ(fresh->close().error().code(), EBUSY);
  ASSERT_TRUE(device.detach());
  EXPECT_EQ(detaches_, 1);
  EXPECT_EQ(kernel_.hwpts(), 0U);
}

TEST_F(Moving, KeepsTheNewContainerAndNotTheOldOne) {
  Device device = attach_alone({});
  const std::weak_ptr<Container> old = device.container();
  ASSERT_TRUE(move_device(device, open()));
  EXPECT_TRUE(old.expired());
  EXPECT_TRUE(device.container()->map(base, bytes()));
}

TEST_F(Moving, SharesAPageTableThatIsThere) {
  Device device = attach_alone({});
  const Device other = attach_alone({});
  EXPECT_EQ(kernel_.hwpts(), 2U);
  ASSERT_TRUE(move_device(device, other.container()));
  EXPECT_EQ(kernel_.hwpts(), 1U);
  const Device elsewhere = attach_alone({.iommu = 1});
  ASSERT_TRUE(move_device(device, elsewhere.container()));
  EXPECT_EQ(kernel_.hwpts(), 3U) << "of another IOMMU, so it gets one of its own";
}

TEST_F(Moving, TheUsableRangesOfBothFollow) {
  Device device = attach_alone({.reserved = {{0x20000000}, {0x2fffffff}}});
  const auto old = device.container();
  const Device stays = attach(failing_, host({}), {.container = old}).value();
  const Device other = attach_alone({});
  const auto without = other.container()->usable_ranges();
  const auto with = old->usable_ranges();
  EXPECT_NE(with, without);
  ASSERT_TRUE(move_device(device, other.container()));
  EXPECT_EQ(old->usable_ranges(), without);
  EXPECT_EQ(other.container()->usable_ranges(), with);
  EXPECT_TRUE(old->map({0x20000000}, bytes(page)));
  EXPECT_EQ(other.container()->map({0x20000000}, bytes(page)).error().code(), ERANGE);
}

TEST_F(Moving, WhatTheOldContainerMapsStaysThereAndNothingFollows) {
  Device device = attach_alone({});
  const auto old = device.container();
  ASSERT_TRUE(old->map(base, bytes()));
  const Device other = attach_alone({});
  ASSERT_TRUE(move_device(device, other.container()));
  EXPECT_EQ(old->mapping_count(), 1U);
  EXPECT_EQ(device.container()->mapping_count(), 0U);
  EXPECT_TRUE(device.container()->map(base, bytes(page)));
  ASSERT_TRUE(move_device(device, old));
  EXPECT_EQ(old->mapping_count(), 1U) << "and is there when it comes back";
}

TEST_F(Moving, AMappingThatDoesNotSuitItsIommuKeepsItWhereItIs) {
  Device low = attach_alone({.iommu = 1, .reserved = {{0}, {0x1fffffff}}});
  Device coarse = attach_alone({.iommu = 2, .page = 65536});
  const Device other = attach_alone({});
  Container& target = *other.container();
  ASSERT_TRUE(target.map(base, bytes(page)));
  const auto before = target.usable_ranges();
  const auto was_in = low.container();
  const auto its_ranges = was_in->usable_ranges();
  const auto taken = move_device(low, other.container());
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), EADDRINUSE);
  EXPECT_EQ(taken.error().kind(), ErrorKind::cannot_share);
  EXPECT_THAT(taken.error().message(),
              AllOf(HasSubstr("move 0000:00:00.0 to container iommufd"), HasSubstr("0x10000000-0x10000fff is mapped")));
  const auto unaligned = move_device(coarse, other.container());
  ASSERT_FALSE(unaligned);
  EXPECT_EQ(unaligned.error().code(), EINVAL);
  EXPECT_THAT(unaligned.error().message(), HasSubstr("this device's IOMMU has pages of 64 KiB"));
  EXPECT_EQ(target.usable_ranges(), before);
  EXPECT_THAT(names(target), ElementsAre(other.name()));
  EXPECT_EQ(low.container(), was_in);
  EXPECT_EQ(was_in->usable_ranges(), its_ranges);
  EXPECT_EQ(kernel_.hwpts(), 3U);
  EXPECT_TRUE(was_in->map({0x30000000}, bytes(page)));
  EXPECT_TRUE(low.detach());
}

TEST_F(Moving, WhatCannotMoveIsRefusedBeforeTheKernelIsAsked) {
  Device device = attach_alone({});
  const auto home = device.container();
  const auto closed = open();
  ASSERT_TRUE(closed->close());
  const HostDevice mate_host = [&] {
    HostDevice of_its_group = host({});
    of_its_group.iommu_group = home->devices().front().iommu_group;
    return of_its_group;
  }();
  const auto refused = [&](const std::shared_ptr<Container>& container, int code, const std::string& text) {
    const int calls = failing_.calls();
    const auto moved = move_device(device, container);
    ASSERT_FALSE(moved) << text;
    EXPECT_EQ(moved.error().code(), code) << moved.error().message();
    EXPECT_TRUE(moved.error().refused());
    EXPECT_THAT(moved.error().message(), AllOf(HasSubstr("0000:00:00.0"), HasSubstr(text)));
    EXPECT_EQ(failing_.calls(), calls) << text;
  };
  refused(nullptr, EINVAL, "the container is null");
  refused(home, EINVAL, "it is in this container already");
  refused(closed, EBADF, "the container was closed");
  {
    sim::FailingKernel another(kernel_);
    refused(Container::open(another, *find_backend("iommufd").value()).value(), EINVAL, "on different Kernels");
  }
  {
    const Device mate = attach(failing_, mate_host, {.container = home}).value();
    refused(open(), EBUSY, "0000:00:01.0 of the same IOMMU group");
  }
  EXPECT_TRUE(move_device(device, open())) << "the other member has left";
  ASSERT_TRUE(device.detach());
  const auto detached = move_device(device, home);
  ASSERT_FALSE(detached);
  EXPECT_EQ(detached.error().code(), EBADF);
}

TEST_F(Moving, WhatItWroteIsDirtyWhereItWroteIt) {
  Device device = attach_alone({});
  const auto old = device.container();
  const Device other = attach_alone({.iommu = 1});
  track_in(old);
  track_in(other.container());
  write(0, 3);
  // While the kernel replaces the page table, before the call returns.
  answer_ = [this](unsigned long request, void* /*argument*/, int result) {
    if (request == VFIO_DEVICE_ATTACH_IOMMUFD_PT && result == 0) write(0, 5);
    return result;
  };
  ASSERT_TRUE(move_device(device, other.container()));
  answer_ = nullptr;
  write(0, 7);
  EXPECT_THAT(query(*old), ElementsAre(3));
  EXPECT_THAT(query(*other.container()), ElementsAre(5, 7));
  EXPECT_THAT(query(*old), IsEmpty());
  ASSERT_TRUE(old->get<DirtyTracker>()->stop());
  ASSERT_TRUE(other.container()->get<DirtyTracker>()->stop());
  EXPECT_FALSE(kernel_.tracked(0));
}

TEST_F(Moving, OneThatLogsItsOwnWritesMissesNone) {
  Device device = attach_alone({.logs_itself = true});
  const auto old = device.container();
  const Device other = attach_alone({.logs_itself = true});
  track_in(old);
  track_in(other.container());
  write(0, 3);
  ASSERT_TRUE(move_device(device, other.container()));
  EXPECT_TRUE(kernel_.logging(0));
  EXPECT_THAT(query(*old), ElementsAre(3));
  EXPECT_EQ(query(*other.container()), all_pages()) << "what it wrote before its new log began is unknown";
  write(0, 9);
  EXPECT_THAT(query(*other.container()), ElementsAre(9));
  ASSERT_TRUE(other.container()->get<DirtyTracker>()->stop());
  EXPECT_FALSE(kernel_.logging(0));
}

TEST_F(Moving, ATrackerThatHasNoSourceForItRefusesItBeforeItMoves) {
  Device device = attach_alone({.iommu = 1, .iommu_tracks = false});
  const Device other = attach_alone({});
  ASSERT_TRUE(other.container()->get<DirtyTracker>()->start(DirtySource::iommu));
  attaches_ = 0;
  const auto refused = move_device(device, other.container());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EOPNOTSUPP);
  EXPECT_THAT(refused.error().message(), HasSubstr("0000:00:00.0: its IOMMU has no dirty bits"));
  EXPECT_EQ(attaches_, 0);
  EXPECT_TRUE(device.container()->map(base, bytes()));
}

TEST_F(Moving, OneThatIsNotTrackedMakesEverythingDirty) {
  Device device = attach_alone({.iommu = 1, .iommu_tracks = false});
  const Device other = attach_alone({});
  track_in(other.container());
  EXPECT_THAT(query(*other.container()), IsEmpty());
  ASSERT_TRUE(move_device(device, other.container()));
  EXPECT_EQ(query(*other.container()), all_pages());
}

TEST_F(Moving, LargerPagesDoNotComeWhileDirtyPagesAreTracked) {
  Device device = attach_alone({.iommu = 1, .page = 65536});
  const auto old = device.container();
  ASSERT_TRUE(old->map(base, bytes()));
  const Device other = attach_alone({});
  ASSERT_TRUE(other.container()->get<DirtyTracker>()->start());
  const auto refused = move_device(device, other.container());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("move 0000"), HasSubstr("stop dirty tracking first")));
  EXPECT_EQ(device.container(), old);
  EXPECT_EQ(kernel_.hwpts(), 2U);
}

// The limits of the new container cannot be read once the device is there.
class MovingBack : public Moving, public ::testing::WithParamInterface<bool> {};

TEST_P(MovingBack, OneThatCannotStayIsTrackedAsBefore) {
  Device device = attach_alone({.logs_itself = GetParam()});
  const auto old = device.container();
  const Device stays = attach(failing_, host({.iommu = 1}), {.container = old}).value();
  const Device other = attach_alone({.iommu = 2});
  track_in(old);
  track_in(other.container());
  write(0, 3);
  answer_ = [](unsigned long request, void* /*argument*/, int result) {
    return request == IOMMU_IOAS_IOVA_RANGES ? -ENOENT : result;
  };
  const auto failed = move_device(device, other.container());
  answer_ = nullptr;
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ENOENT);
  EXPECT_EQ(failed.error().operation(), "IOMMU_IOAS_IOVA_RANGES");
  EXPECT_EQ(device.container(), old);
  EXPECT_THAT(names(*old), ElementsAre(device.name(), stays.name())) << "in the order in which they came";
  EXPECT_THAT(names(*other.container()), ElementsAre(other.name()));
  EXPECT_EQ(kernel_.hwpts(), 3U);
  write(0, 9);
  write(1, 11);
  if (GetParam()) {
    EXPECT_EQ(query(*old), all_pages());
    write(0, 9);
    EXPECT_THAT(query(*old), ElementsAre(9));
  } else {
    EXPECT_THAT(query(*old), ElementsAre(3, 9, 11));
  }
  EXPECT_THAT(query(*other.container()), IsEmpty());
  EXPECT_TRUE(move_device(device, other.container()));
}

INSTANTIATE_TEST_SUITE_P(Sources, MovingBack, ::testing::Bool(),
                         [](const auto& test) { return test.param ? std::string("device") : std::string("iommu"); });

TEST_F(Moving, OneThatTheKernelDoesNotTakeBackIsInItsNewContainer) {
  Device device = attach_alone({.iommu = 1});
  const auto old = device.container();
  const Device other = attach_alone({});
  track_in(other.container());
  failing_.refuse = [attaches = 0](unsigned long request, void* /*argument*/) mutable {
    if (request == IOMMU_IOAS_IOVA_RANGES) return -ENOENT;
    // The other's page table does not suit it, its own does, and then it is to go back.
    return request == VFIO_DEVICE_ATTACH_IOMMUFD_PT && ++attaches > 2 ? -EIO : 0;
  };
  const auto failed = move_device(device, other.container());
  failing_.refuse = nullptr;
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ENOENT);
  EXPECT_THAT(failed.error().message(), HasSubstr("does not take it back either, so it has moved"));
  EXPECT_EQ(device.container(), other.container());
  EXPECT_THAT(names(*old), IsEmpty());
  EXPECT_THAT(names(*other.container()), ElementsAre(other.name(), device.name()));
  EXPECT_EQ(query(*other.container()), all_pages());
  EXPECT_TRUE(old->close());
  EXPECT_TRUE(device.detach());
}

}  // namespace moving_test
}  // namespace postern
