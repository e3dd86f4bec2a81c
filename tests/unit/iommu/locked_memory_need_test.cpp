// SPDX-License-Identifier: Apache-2.0
// What type1 and iommufd count as locked memory for a layout and its devices, and how that is judged.
#include <gtest/gtest.h>
#include <linux/iommufd.h>

#include <limits>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/forwarding_kernel.hpp>
#include <postern/locked_memory_need.hpp>

#include "iommu/memory_to_map.hpp"
#include "support/tree_kernel.hpp"

namespace postern {
namespace locked_memory_need_test {

constexpr std::uint64_t kib = 1 << 10;
constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
constexpr const char* counting_backends[] = {"type1", "iommufd"};

HostDevice in_group(std::uint32_t group) {
  HostDevice device;
  device.name = "0000:00:0" + std::to_string(group) + ".0";
  device.iommu_group = GroupId{group};
  return device;
}

LockedMemoryNeed need(std::string_view backend, const auto& memory, const std::vector<HostDevice>& devices = {}) {
  test::TreeKernel kernel;
  const auto needs = locked_memory_needed(kernel, *find_backend(backend).value(), memory, devices);
  EXPECT_TRUE(needs);
  EXPECT_EQ(needs->size(), 1U) << "all versions count alike";
  EXPECT_EQ(needs->front().backend, backend);
  return needs->front();
}

Memory bytes_at(std::uintptr_t address, std::size_t length) {
  return std::span(reinterpret_cast<std::byte*>(address), length);
}

Mapping mapping(std::uint64_t iova, const Memory& memory) {
  return {.range = IovaRange::from_length({iova}, memory.length()).value(), .memory = memory};
}

TEST(LockedMemoryNeed, OfOneContainerIsWhatIsMapped) {
  for (const char* backend : counting_backends) {
    const LockedMemoryNeed found = need(backend, 16 * mib);
    EXPECT_EQ(found.at_least(), 16 * mib) << backend;
    EXPECT_EQ(found.at_most(), 16 * mib) << backend;
    EXPECT_EQ(found.containers_at_most, 1U) << backend;
    EXPECT_EQ(found.what, "16 MiB to be mapped");
  }
}

TEST(LockedMemoryNeed, IsCountedInWholePages) {
  EXPECT_EQ(need("type1", std::uint64_t{1}).at_least(), 4 * kib);
  EXPECT_EQ(need("type1", 4 * kib).at_least(), 4 * kib);
  EXPECT_EQ(need("iommufd", 4 * kib + 1).at_least(), 8 * kib);
  EXPECT_EQ(need("iommufd", std::uint64_t{0}).at_least(), 0U);
}

TEST(LockedMemoryNeed, IsCountedByProcessOrByUser) {
  EXPECT_EQ(need("type1", mib).counter, LockedMemoryCounter::process);
  EXPECT_EQ(need("iommufd", mib).counter, LockedMemoryCounter::user);
}

// An iommufd of which somebody with CAP_SYS_RESOURCE has set IOMMU_OPTION_RLIMIT_MODE.
class ByProcess : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    auto* const option = static_cast<iommu_option*>(argument);
    if (request != IOMMU_OPTION || option->option_id != IOMMU_OPTION_RLIMIT_MODE)
      return ForwardingKernel::ioctl(fd, request, argument);
    EXPECT_EQ(option->op, IOMMU_OPTION_OP_GET);
    EXPECT_EQ(option->object_id, 0U);
    option->val64 = mode;
    return result;
  }
  std::uint64_t mode = 1;
  int result = 0;
};

TEST(LockedMemoryNeed, OfAnIommufdThatIsOpenIsCountedAsThatIsToldTo) {
  sim::Kernel simulated;
  ByProcess kernel(simulated);
  const Backend& iommufd = *find_backend("iommufd").value();
  const auto counter = [&] { return locked_memory_needed(kernel, iommufd, mib)->front().counter; };
  EXPECT_EQ(counter(), LockedMemoryCounter::user) << "none is open";
  const auto device = attach_pci(kernel, "0000:00:01.0", {.backend = "iommufd"});
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_EQ(counter(), LockedMemoryCounter::process);
  kernel.mode = 0;
  EXPECT_EQ(counter(), LockedMemoryCounter::user);
  kernel.mode = 1;
  kernel.result = -EOPNOTSUPP;
  EXPECT_EQ(counter(), LockedMemoryCounter::user) << "the kernel does not tell";
}

TEST(LockedMemoryNeed, GrowsWithTheContainersThatTheGroupsMayNeed) {
  for (const char* backend : counting_backends) {
    const LockedMemoryNeed three = need(backend, mib, {in_group(1), in_group(2), in_group(3)});
    EXPECT_EQ(three.containers_at_least, 1U) << backend;
    EXPECT_EQ(three.containers_at_most, 3U) << backend;
    EXPECT_EQ(three.at_least(), mib) << backend;
    EXPECT_EQ(three.at_most(), 3 * mib) << backend;
    EXPECT_EQ(need(backend, mib, {in_group(1), in_group(1)}).at_most(), mib) << "one group shares one container";
    EXPECT_EQ(need(backend, mib, {in_group(1), HostDevice()}).containers_at_most, 2U) << "a device without a group";
  }
}

TEST(LockedMemoryNeed, OfALayoutCountsMemoryAsOftenAsItIsMapped) {
  const Memory ram = bytes_at(0x10000000, 2 * mib);
  const Memory file = Memory::of_file(nullptr, 0, mib);
  const std::vector layout = {mapping(0, ram), mapping(4 * mib, ram.part(mib, mib)), mapping(8 * mib, file)};
  EXPECT_EQ(need("type1", std::span<const Mapping>(layout)).at_least(), 4 * mib);
  EXPECT_EQ(need("iommufd", std::span<const Mapping>(layout)).at_least(), 4 * mib);
}

TEST(LockedMemoryNeed, OfADmaBufIsNone) {
  const std::vector layout = {mapping(0, Memory::of_dma_buf(nullptr, 0, mib))};
  EXPECT_EQ(need("iommufd", std::span<const Mapping>(layout)).at_least(), 0U);
}

TEST(LockedMemoryNeed, OfNoLayoutIsNone) {
  EXPECT_EQ(need("type1", std::span<const Mapping>()).at_most(), 0U);
  EXPECT_EQ(need("type1", std::span<const Mapping>(), {in_group(1), in_group(2)}).at_most(), 0U);
}

TEST(LockedMemoryNeed, StopsAtTheLargestNumber) {
  EXPECT_EQ(need("type1", most).at_least(), most);
  EXPECT_EQ(need("type1", most - 4095).at_least(), most - 4095) << "whole pages";
  const LockedMemoryNeed two = need("type1", most / 2 + 1, {in_group(1), in_group(2)});
  EXPECT_EQ(two.at_least(), most / 2 + 1);
  EXPECT_EQ(two.at_most(), most);
  EXPECT_EQ((LockedMemoryNeed{.once = most - 1, .each = 2}.at_least()), most);
  EXPECT_EQ(capped_product(0, most), 0U);
  EXPECT_EQ(capped_product(most, 0), 0U);
}

class Judged : public ::testing::Test {
 protected:
  [[nodiscard]] LockedMemoryVerdict judge() const { return need_.judge(memory_); }

  LockedMemory memory_{.limit = 8 * mib};
  LockedMemoryNeed need_{.each = 8 * mib};
};

TEST_F(Judged, ByTheProcessIsExact) {
  EXPECT_EQ(judge(), LockedMemoryVerdict::allowed);
  memory_.pinned = mib;
  EXPECT_EQ(judge(), LockedMemoryVerdict::allowed) << "that is the user's";
  memory_.locked = 4 * kib;
  EXPECT_EQ(judge(), LockedMemoryVerdict::refused);
  need_.each -= 4 * kib;
  EXPECT_EQ(judge(), LockedMemoryVerdict::allowed);
}

TEST_F(Judged, ByTheUserDependsOnOtherProcesses) {
  need_.counter = LockedMemoryCounter::user;
  memory_.locked = mib;
  EXPECT_EQ(judge(), LockedMemoryVerdict::uncertain) << "mlock(2) is not counted";
  memory_.pinned = 4 * kib;
  EXPECT_EQ(judge(), LockedMemoryVerdict::refused);
}

TEST_F(Judged, WithTooFewBytesForTheMostContainersIsUncertain) {
  need_.containers_at_most = 2;
  EXPECT_EQ(judge(), LockedMemoryVerdict::uncertain);
  memory_.limit = 16 * mib;
  EXPECT_EQ(judge(), LockedMemoryVerdict::allowed);
  need_.containers_at_least = 2;
  memory_.limit = 16 * mib - 1;
  EXPECT_EQ(judge(), LockedMemoryVerdict::refused);
}

TEST_F(Judged, WithoutALimitIsAllowed) {
  need_ = {.counter = LockedMemoryCounter::user, .each = most, .containers_at_most = 2};
  EXPECT_EQ(judge(), LockedMemoryVerdict::refused);
  memory_.exempt = true;
  EXPECT_EQ(judge(), LockedMemoryVerdict::allowed);
  memory_ = {};
  EXPECT_EQ(judge(), LockedMemoryVerdict::allowed);
}

// The error of a map names the numbers of the need.
TEST(LockedMemoryNeed, IsWhatTheErrorOfAMapAsksFor) {
  for (const char* backend : counting_backends) {
    sim::Kernel kernel([] {
      sim::Host host = sim::pc();
      host.locked_memory = 8 * mib;
      return host;
    }());
    const auto device = attach_pci(kernel, "0000:00:01.0", {.backend = backend});
    ASSERT_TRUE(device) << device.error().message();
    std::vector<std::byte> bytes(17 * mib);
    void* aligned = bytes.data();
    std::size_t room = bytes.size();
    ASSERT_NE(std::align(4 * kib, 16 * mib, aligned, room), nullptr);
    const std::span memory(static_cast<std::byte*>(aligned), 16 * mib);
    ASSERT_TRUE(device->container()->map({0x100000}, memory.first(mib)));
    const auto needs = locked_memory_needed(kernel, *find_backend(backend).value(), 16 * mib);
    const LockedMemory now = LockedMemory::read(kernel).value();
    EXPECT_EQ(needs->front().judge(now), LockedMemoryVerdict::refused);
    const auto refused = device->container()->map({0x10000000}, memory);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENOMEM);
    EXPECT_EQ(refused.error().kind(), ErrorKind::locked_memory);
    EXPECT_EQ(refused.error().remedies(), now.raise_limit(needs->front().at_most(), needs->front().counter));
    EXPECT_EQ(refused.error().remedies().begin()->arguments.front(), std::to_string(17 * 1024)) << backend;
    EXPECT_TRUE(device->container()->unmap_all());
  }
}

}  // namespace locked_memory_need_test
}  // namespace postern
