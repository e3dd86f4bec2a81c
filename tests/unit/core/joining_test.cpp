// SPDX-License-Identifier: Apache-2.0
// Devices that join a container in use, on a fake iommufd: cases that need devices which differ more than those of the
// guests.
#include <gmock/gmock.h>
#include <linux/vfio.h>

#include <postern-sim/faults.hpp>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>

#include "support/iommufd_kernel.hpp"

namespace postern {
namespace joining_test {

using test::IommufdKernel;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

class Joining : public ::testing::Test {
 protected:
  HostDevice host(IommufdKernel::Model model) {
    return kernel_.add("0000:00:0" + std::to_string(count_++) + ".0", model);
  }
  Result<Device> attach_to(const std::shared_ptr<Container>& container, const HostDevice& device) {
    return attach(failing_, device, {.backend = "iommufd", .container = container});
  }
  std::span<std::byte> bytes(std::uint64_t length) {
    auto* const aligned = reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(memory_.data()) + 0xffff) &
                                                       ~std::uintptr_t{0xffff});
    return {aligned, length};
  }

  IommufdKernel kernel_;
  sim::FailingKernel failing_{kernel_};
  std::vector<std::byte> memory_ = std::vector<std::byte>(1 << 20);
  int count_ = 0;
};

TEST_F(Joining, TheUsableRangesShrinkAndGrowAgain) {
  const Device first = attach_to(nullptr, host({})).value();
  Container& container = *first.container();
  const auto alone = container.usable_ranges();
  {
    const Device second =
        attach_to(first.container(), host({.iommu = 1, .reserved = {{0x20000000}, {0x2fffffff}}})).value();
    EXPECT_THAT(container.usable_ranges(),
                ElementsAre(IovaRange{{0}, {0x1fffffff}}, IovaRange{{0x30000000}, {0xfedfffff}},
                            IovaRange{{0xfef00000}, {(1ULL << 48) - 1}}));
    EXPECT_EQ(container.map({0x20000000}, bytes(page)).error().code(), ERANGE);
  }
  EXPECT_EQ(container.usable_ranges(), alone);
  EXPECT_TRUE(container.map({0x20000000}, bytes(page)));
}

TEST_F(Joining, AMappingThatNoLongerFitsRefusesTheNewcomer) {
  const Device first = attach_to(nullptr, host({})).value();
  Container& container = *first.container();
  const auto before = container.usable_ranges();
  ASSERT_TRUE(container.map(base, bytes(page)));
  const auto refused = attach_to(first.container(), host({.iommu = 1, .reserved = {{0}, {0x1fffffff}}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EADDRINUSE);
  EXPECT_EQ(refused.error().kind(), ErrorKind::cannot_share);
  EXPECT_THAT(refused.error().message(),
              AllOf(HasSubstr("0x10000000-0x10000fff is mapped"), HasSubstr("with this device only 0x20000000"),
                    HasSubstr("to a new container")));
  EXPECT_EQ(container.usable_ranges(), before);
  EXPECT_THAT(container.devices(), ElementsAre(Field(&HostDevice::name, first.name())));
  EXPECT_EQ(kernel_.hwpts(), 1U) << "the newcomer's page table is gone";
}

TEST_F(Joining, LargerPagesRefuseTheNewcomerWhereAMappingIsNotAligned) {
  const Device first = attach_to(nullptr, host({})).value();
  Container& container = *first.container();
  ASSERT_TRUE(container.map(base, bytes(page)));
  const HostDevice newcomer = host({.iommu = 1, .page = 65536});
  const auto refused = attach_to(first.container(), newcomer);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("this device's IOMMU has pages of 64 KiB"));
  ASSERT_TRUE(container.unmap_all());
  ASSERT_TRUE(container.map(base, bytes(65536)));
  const auto joined = attach_to(first.container(), newcomer);
  ASSERT_TRUE(joined) << joined.error().message();
  EXPECT_EQ(container.map(base + 65536, bytes(page)).error().code(), EINVAL);
}

TEST_F(Joining, LargerPagesDoNotJoinWhileDirtyPagesAreTracked) {
  const Device first = attach_to(nullptr, host({})).value();
  ASSERT_TRUE(first.container()->get<DirtyTracker>()->start());
  const auto refused = attach_to(first.container(), host({.iommu = 1, .page = 65536}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().message(), HasSubstr("stop dirty tracking first"));
  EXPECT_EQ(first.container()->page_sizes() & page, page);
}

TEST_F(Joining, WhatCannotBeSharedIsReplayedIntoANewContainer) {
  const Device first = attach_to(nullptr, host({})).value();
  Container& shared = *first.container();
  ASSERT_TRUE(shared.map(base, bytes(page), Access::read));
  ASSERT_TRUE(shared.map(base + 65536, bytes(3 * page)));
  int refused_once = 0;
  failing_.answer = [&](unsigned long request, void*, int result) {
    return request == VFIO_DEVICE_ATTACH_IOMMUFD_PT && ++refused_once == 1 ? -EIO : result;
  };
  std::vector<Error> refusals;
  const auto second =
      attach(failing_, host({}), {.backend = "iommufd", .join = {first.container()}, .refusals = &refusals});
  ASSERT_TRUE(second) << second.error().message();
  ASSERT_EQ(refusals.size(), 1U);
  EXPECT_THAT(refusals[0].message(), HasSubstr("EIO"));
  ASSERT_NE(second->container(), first.container());
  EXPECT_EQ(second->container()->mapping_count(), 2U);
  const auto replayed = second->container()->find(base);
  ASSERT_TRUE(replayed);
  EXPECT_EQ(replayed->memory.address(), bytes(page).data());
  EXPECT_EQ(replayed->access, Access::read);
}

TEST_F(Joining, AReplayThatFailsHalfWayLeavesNothing) {
  const Device first = attach_to(nullptr, host({})).value();
  for (std::uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(first.container()->map(base + i * page, bytes(page)));
  int attaches = 0;
  int maps = 0;
  std::vector<std::uint32_t> destroyed;
  failing_.answer = [&](unsigned long request, void* argument, int result) {
    if (request == VFIO_DEVICE_ATTACH_IOMMUFD_PT && ++attaches == 1) return -EIO;
    if (request == IOMMU_IOAS_MAP && ++maps == 3) return -ENOMEM;
    if (request == IOMMU_DESTROY) destroyed.push_back(static_cast<iommu_destroy*>(argument)->id);
    return result;
  };
  const HostDevice newcomer = host({});
  const auto refused = attach(failing_, newcomer, {.backend = "iommufd", .join = {first.container()}});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENOMEM);
  EXPECT_THAT(refused.error().message(), HasSubstr("2 of 4 mappings could be replayed"));
  ASSERT_EQ(refused.error().causes().size(), 2U);
  EXPECT_THAT(refused.error().causes()[0].message(), HasSubstr("EIO"));
  EXPECT_THAT(refused.error().causes()[1].message(), HasSubstr("IOMMU_IOAS_MAP: ENOMEM"));
  EXPECT_EQ(destroyed.size(), 2U) << "its page table and its IOAS";
  EXPECT_EQ(kernel_.hwpts(), 1U);
  EXPECT_EQ(first.container()->mapping_count(), 4U);
  failing_.answer = nullptr;
  EXPECT_TRUE(attach(failing_, newcomer, {.backend = "iommufd", .join = {first.container()}}));
}

}  // namespace joining_test
}  // namespace postern
