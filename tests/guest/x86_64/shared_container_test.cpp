// SPDX-License-Identifier: Apache-2.0
// Several devices in one container, and other behaviour that only this guest's backends have.
#include <gmock/gmock.h>
#include <sys/mman.h>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace shared_container_test {

using test::Bound;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x100000000};

class SharedContainer : public ::testing::TestWithParam<test::Interface> {
 protected:
  SharedContainer()
      : bound_(test::nvme_disk),
        device_(attach(system_kernel(), bound_.host(), test::options_for(GetParam())).value()),
        memory_(system_kernel(), ::mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                2 * page) {}

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

// Sets vfio_iommu_type1's dma_entry_limit, for containers opened during its lifetime.
class MappingLimit {
 public:
  explicit MappingLimit(const std::string& limit) {
    EXPECT_EQ(system_kernel().read_file(path, before_), 0);
    EXPECT_EQ(system_kernel().write_file(path, limit), 0);
  }
  ~MappingLimit() { EXPECT_EQ(system_kernel().write_file(path, before_), 0); }
  MappingLimit(const MappingLimit&) = delete;
  MappingLimit& operator=(const MappingLimit&) = delete;

 private:
  static constexpr const char* path = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";
  std::string before_;
};

TEST(OtherBackend, AReplayThatRunsIntoTheMappingLimitLeavesNothing) {
  const Bound a(test::nvme_disk);
  const Bound b(test::nvme_behind_port);
  const Mmap memory(system_kernel(), ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
                    page);
  const Device first = attach(system_kernel(), a.host(), {.backend = "iommufd"}).value();
  for (std::uint64_t i = 0; i < 12; ++i) ASSERT_TRUE(first.container()->map(base + i * page, memory.bytes()));
  const ResourceUse before = ResourceUse::now();
  std::vector<Error> refusals;
  const AttachOptions options{.backend = "type1", .join = {first.container()}, .refusals = &refusals};
  {
    const MappingLimit limit("10");
    const auto refused = attach(system_kernel(), b.host(), options);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENOSPC);
    EXPECT_THAT(refused.error().message(),
                AllOf(HasSubstr("the backend type1 was requested"), HasSubstr("10 of 12 mappings could be replayed"),
                      HasSubstr("dma_entry_limit")));
    EXPECT_TRUE(before == ResourceUse::now());
  }
  const auto second = attach(system_kernel(), b.host(), options);
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(second->container()->backend(), "type1");
  EXPECT_EQ(second->container()->mapping_count(), 12U);
  ASSERT_EQ(refusals.size(), 1U);
}

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

}  // namespace shared_container_test
}  // namespace postern
