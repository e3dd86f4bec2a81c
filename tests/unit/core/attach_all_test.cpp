// SPDX-License-Identifier: Apache-2.0
// attach_all(): attaches several devices to one container in parallel, all or none.
#include <gmock/gmock.h>
#include <linux/vfio.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace attach_all_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

// Blocks each thread that opens a device until the expected number of threads do so, or until a timeout.
class MeetingKernel final : public sim::FailingKernel {
 public:
  using FailingKernel::FailingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request == VFIO_DEVICE_BIND_IOMMUFD || request == VFIO_GROUP_GET_DEVICE_FD) {
      std::unique_lock lock(mutex_);
      most_ = std::max(most_, ++inside_);
      arrived_.notify_all();
      arrived_.wait_for(lock, 10s, [&] { return most_ >= expected; });
      --inside_;
      if (++opened_ == fails_at) return -EIO;
    }
    return FailingKernel::ioctl(fd, request, argument);
  }
  [[nodiscard]] int most() const { return most_; }

  int expected = 1;
  int fails_at = 0;  // which open fails

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  int inside_ = 0;
  int most_ = 0;
  int opened_ = 0;
};

class AttachAll : public ::testing::TestWithParam<const char*> {
 protected:
  AttachAll() {
    for (const std::uint8_t number : std::initializer_list<std::uint8_t>{1, 2, 3}) {
      sim::HostFunction disk;
      disk.address.device = number;
      disk.iommu_group = number;
      disk.driver = "vfio-pci";
      host_.functions.push_back(disk);
    }
  }
  std::vector<HostDevice> disks(Kernel& kernel, std::initializer_list<std::uint8_t> numbers) {
    std::vector<HostDevice> disks;
    for (const std::uint8_t number : numbers) disks.push_back(find_pci_function(kernel, {.device = number})->host);
    return disks;
  }
  sim::Host host_;
};

TEST_P(AttachAll, OpensThemAtOnceAndKeepsTheirOrder) {
  sim::Kernel simulated(host_);
  MeetingKernel kernel(simulated);
  kernel.expected = 3;
  auto devices = attach_all(kernel, disks(kernel, {3, 1, 2}), {.backend = GetParam()});
  ASSERT_TRUE(devices) << devices.error().message();
  EXPECT_EQ(kernel.most(), 3) << "one waited for the other";
  ASSERT_EQ(devices->size(), 3U);
  EXPECT_EQ(devices->at(0).name(), "0000:00:03.0");
  EXPECT_EQ(devices->at(2).name(), "0000:00:02.0");
  EXPECT_EQ(devices->at(0).container(), devices->at(2).container());
  EXPECT_EQ(devices->at(0).container()->devices().size(), 3U);
}

TEST_P(AttachAll, OrNone) {
  sim::Kernel simulated(host_);
  MeetingKernel kernel(simulated);
  const auto first = attach(kernel, disks(kernel, {1})[0], {.backend = GetParam()});
  ASSERT_TRUE(first);
  kernel.fails_at = 3;
  const auto container = first->container();
  const auto refused = attach_all(kernel, disks(kernel, {2, 3}), {.container = container});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EIO);
  EXPECT_EQ(container->devices().size(), 1U);
  kernel.fails_at = 0;
  const auto again = attach_all(kernel, disks(kernel, {2, 3}), {.container = container});
  EXPECT_TRUE(again) << again.error().message() << ": something was left open";
}

TEST_P(AttachAll, RefusesADeviceThatIsGivenTwiceOrAttachedAlready) {
  sim::Kernel kernel(host_);
  const auto twice = attach_all(kernel, disks(kernel, {1, 2, 1}), {.backend = GetParam()});
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().code(), EINVAL);
  EXPECT_THAT(twice.error().message(), HasSubstr("it is listed twice"));
  const auto first = attach(kernel, disks(kernel, {1})[0], {.backend = GetParam()});
  const auto again = attach_all(kernel, disks(kernel, {2, 1}), {.container = first->container()});
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), EBUSY);
  EXPECT_EQ(first->container()->devices().size(), 1U);
}

TEST_P(AttachAll, OfNoneIsNone) {
  sim::Kernel kernel(host_);
  const auto none = attach_all(kernel, {}, {.backend = GetParam()});
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->empty());
}

TEST_P(AttachAll, GivesWhatIsMappedToAllOfThem) {
  sim::Kernel kernel(host_);
  auto first = attach(kernel, disks(kernel, {1})[0], {.backend = GetParam()});
  const auto container = first->container();
  std::vector<std::byte> memory(8192);
  const auto up = (4096 - reinterpret_cast<std::uintptr_t>(memory.data()) % 4096) % 4096;
  ASSERT_TRUE(container->map({0x10000000}, std::span(memory).subspan(up, 4096)));
  ASSERT_TRUE(first->detach());
  const auto both = attach_all(kernel, disks(kernel, {2, 3}), {.container = container});
  ASSERT_TRUE(both) << both.error().message();
  EXPECT_TRUE(container->unmap({0x10000000}, 4096)) << "the kernel has it again, once";
}

INSTANTIATE_TEST_SUITE_P(Backends, AttachAll, ::testing::Values("type1", "iommufd"));

}  // namespace attach_all_test
}  // namespace postern
