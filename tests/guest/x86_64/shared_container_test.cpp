// SPDX-License-Identifier: Apache-2.0
// Several devices in one container, and what else only the backends of this guest do.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace {

using test::Bound;

class SharedContainer : public ::testing::TestWithParam<test::Interface> {
 protected:
  SharedContainer()
      : bound_(test::nvme_disk),
        device_(attach(system_kernel(), bound_.host(), test::options_for(GetParam())).value()),
        memory_(system_kernel(), ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                2 * page) {}

  static constexpr std::uint64_t page = 4096;
  static constexpr Iova base{0x100000000};
  [[nodiscard]] std::span<std::byte> memory(std::size_t length) const { return memory_.bytes().first(length); }
  Container& container() { return *device_.container(); }

  Bound bound_;
  Device device_;
  Mmap memory_;
};

TEST_P(SharedContainer, LeavesOutTheRangeOfMessageSignalledInterrupts) {
  EXPECT_GE(container().usable_ranges().size(), 2U) << "VT-d reserves it";
  for (const IovaRange range : container().usable_ranges()) EXPECT_FALSE(range.contains(Iova{0xfee00000}));
  EXPECT_EQ(container().map(Iova{0xfee00000}, memory(page)).error().code(), ERANGE);
}

TEST_P(SharedContainer, SeveralDevicesShareIt) {
  const Bound second(test::edu);
  const Bound third(test::nvme_behind_port);
  ASSERT_TRUE(container().map(base, memory(page)));
  auto edu = attach(system_kernel(), second.host(), {.container = device_.container()});
  ASSERT_TRUE(edu) << edu.error().message();
  auto nvme = attach(system_kernel(), third.host(), {.container = device_.container()});
  ASSERT_TRUE(nvme) << nvme.error().message();
  EXPECT_EQ(container().devices().size(), 3U);
  ASSERT_TRUE(container().map(base + page, memory(page)));
  EXPECT_TRUE(edu->detach());
  ASSERT_TRUE(container().unmap_all());
  EXPECT_TRUE(nvme->detach());
}

TEST_P(SharedContainer, TwoDevicesOfOneGroupShareIt) {
  const Bound a(test::twin_a);
  const Bound b(test::twin_b);
  ASSERT_EQ(a.host().iommu_group, b.host().iommu_group);
  auto first = attach(system_kernel(), a.host(), {.container = device_.container()});
  ASSERT_TRUE(first) << first.error().message();
  auto second = attach(system_kernel(), b.host(), {.container = device_.container()});
  ASSERT_TRUE(second) << second.error().message();
}

INSTANTIATE_TEST_SUITE_P(Backends, SharedContainer, ::testing::ValuesIn(test::interfaces()), test::interface_name);

TEST(Iommufd, HugePagesCanBeAvoidedForAContainer) {
  const Bound bound(test::nvme_disk);
  auto device = attach(system_kernel(), bound.host(),
                       {.backend = "iommufd", .container_options = {.huge_pages = HugePages::avoid}});
  ASSERT_TRUE(device) << device.error().message();
}

TEST(Type1, SaysThatItCannotAvoidHugePages) {
  const Bound bound(test::nvme_disk);
  auto device = attach(system_kernel(), bound.host(),
                       {.backend = "type1", .container_options = {.huge_pages = HugePages::avoid}});
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().code(), EOPNOTSUPP);
}

}  // namespace
}  // namespace postern
