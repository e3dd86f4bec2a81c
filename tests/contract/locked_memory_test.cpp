// SPDX-License-Identifier: Apache-2.0
// What locked_memory_needed() computes is what the kernel counts: for one container, and for two.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <postern/guest_memory.hpp>
#include <postern/locked_memory_need.hpp>

#include "support/host_devices.hpp"

namespace postern {
namespace locked_memory_test {

using test::Bound;

constexpr std::uint64_t piece = 1 << 20;
constexpr Iova base{0x4000000};

class LockedMemoryOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  LockedMemoryOnKernel()
      : first_(test::first_nvme()),
        second_(test::last_nvme()),
        bytes_(test::kernel(), ::mmap(nullptr, 4 * piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
               4 * piece) {}

  [[nodiscard]] LockedMemoryNeed need(std::span<const HostDevice> devices) const {
    const Backend& backend = *find_backend(GetParam().backend).value();
    const auto needs = locked_memory_needed(test::kernel(), backend, layout_, devices).value();
    const auto found = std::find_if(needs.begin(), needs.end(), [](const LockedMemoryNeed& each) {
      return each.version == 0 || each.version == GetParam().version;
    });
    EXPECT_NE(found, needs.end());
    return *found;
  }
  static std::uint64_t used(LockedMemoryCounter counter) {
    return LockedMemory::read(test::kernel()).value().used(counter);
  }
  // A guest with the layout.
  [[nodiscard]] GuestMemory memory() const {
    GuestMemory made(test::kernel(),
                     {.backend = GetParam().backend, .container_options = {.version = GetParam().version}});
    auto change = made.begin().value();
    for (const Mapping& each : layout_) EXPECT_TRUE(change.add(each.range.first, each.memory, each.access));
    EXPECT_TRUE(change.commit());
    return made;
  }

  Bound first_;
  Bound second_;
  Mmap bytes_;
  // Two pieces, and part of the first again.
  const std::vector<Mapping> layout_ = {at(0, 0, 1), at(4, 2, 2), at(8, 0, 1)};

 private:
  [[nodiscard]] Mapping at(std::uint64_t place, std::uint64_t number, std::uint64_t pieces) const {
    return {.range = IovaRange::from_length(base + place * piece, pieces * piece).value(),
            .memory = bytes_.bytes().subspan(number * piece, pieces * piece)};
  }
};

TEST_P(LockedMemoryOnKernel, OfOneContainerGrowsByTheNeed) {
  const HostDevice device = first_.host();
  const LockedMemoryNeed computed = need(std::span(&device, 1));
  ASSERT_EQ(computed.at_least(), computed.at_most());
  const std::uint64_t before = used(computed.counter);
  {
    GuestMemory guest = memory();
    EXPECT_EQ(used(computed.counter), before) << "nothing counts without a device";
    const auto attached = guest.attach(device);
    ASSERT_TRUE(attached) << attached.error().message();
    EXPECT_EQ(used(computed.counter) - before, computed.at_least());
    EXPECT_EQ(need(std::span(&device, 1)).counter, computed.counter) << "with a container open, too";
  }
  EXPECT_EQ(used(computed.counter), before);
}

TEST_P(LockedMemoryOnKernel, OfTwoContainersGrowsByTheNeedOfBoth) {
  const std::vector devices = {first_.host(), second_.host()};
  const LockedMemoryNeed computed = need(devices);
  ASSERT_EQ(computed.containers_at_most, 2U);
  const std::uint64_t before = used(computed.counter);
  {
    GuestMemory one = memory();
    GuestMemory other = memory();
    const auto first = one.attach(devices[0]);
    ASSERT_TRUE(first) << first.error().message();
    const auto second = other.attach(devices[1]);
    ASSERT_TRUE(second) << second.error().message();
    EXPECT_EQ(used(computed.counter) - before, computed.at_most());
  }
  EXPECT_EQ(used(computed.counter), before);
}

TEST_P(LockedMemoryOnKernel, OfDevicesThatMayShareIsBetweenTheNeeds) {
  const std::vector devices = {first_.host(), second_.host()};
  const LockedMemoryNeed computed = need(devices);
  const std::uint64_t before = used(computed.counter);
  GuestMemory guest = memory();
  const auto first = guest.attach(devices[0]);
  ASSERT_TRUE(first) << first.error().message();
  const auto second = guest.attach(devices[1]);
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_EQ(guest.containers().size(), second->joined ? 1U : 2U);
  EXPECT_GE(guest.containers().size(), computed.containers_at_least);
  // With iommufd a second one would have copies.
  const std::uint64_t counting = GetParam().backend == "iommufd" ? 1 : guest.containers().size();
  EXPECT_EQ(used(computed.counter) - before, computed.once + computed.each * counting);
}

INSTANTIATE_TEST_SUITE_P(Interfaces, LockedMemoryOnKernel, ::testing::ValuesIn(test::interfaces()),
                         test::interface_name);

}  // namespace locked_memory_test
}  // namespace postern
