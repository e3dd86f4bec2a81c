// SPDX-License-Identifier: Apache-2.0
// Low power, for each backend: entering and leaving it, and what of the device works meanwhile.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <unistd.h>

#include <chrono>
#include <postern/deadline.hpp>
#include <postern/low_power.hpp>
#include <string>

#include "support/host_devices.hpp"

namespace postern {
namespace low_power_test {

using test::Bound;
using ::testing::HasSubstr;

class LowPowerOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  void SetUp() override {
    disk_.emplace(
        PciDevice::open(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value()).value());
    ASSERT_TRUE(disk_->enable_memory());
    if (!device().has_feature(VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY)) GTEST_SKIP() << "this kernel has no low power";
  }
  [[nodiscard]] const Device& device() const { return disk_->device(); }
  [[nodiscard]] bool answers() const {
    std::array<std::byte, 8> capabilities{};
    return device().read(0, 0, capabilities) && disk_->check_responds();
  }

  // Waits until the host has suspended it, which takes a moment; a simulated one does so at once.
  [[nodiscard]] bool is_suspended() const {
    std::string status;
    const auto look = [&] {
      const int result = test::kernel().read_file(bound_.host().sysfs_path + "/power/runtime_status", status);
      return result < 0 || status == "suspended\n";
    };
    return poll_until(Deadline(std::chrono::seconds(10)), std::chrono::milliseconds(10), look);
  }

  Bound bound_{test::first_nvme()};
  std::optional<PciDevice> disk_;
};

TEST_P(LowPowerOnKernel, IsEnteredOnceAndLeft) {
  ASSERT_TRUE(enter_low_power(device()));
  const auto again = enter_low_power(device());
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), EINVAL);
  EXPECT_THAT(again.error().message(), HasSubstr("in low power already"));
  EXPECT_TRUE(answers()) << "a call wakes the device";
  EXPECT_TRUE(exit_low_power(device()));
  EXPECT_TRUE(exit_low_power(device())) << "it may not be in low power";
  EXPECT_TRUE(answers());
  ASSERT_TRUE(enter_low_power(device())) << "again";
}

TEST_P(LowPowerOnKernel, IsEnteredWithAnEventThatTellsOfTheWakeUp) {
  const Event event = Event::create(test::kernel()).value();
  ASSERT_TRUE(enter_low_power(device(), event));
  if (!is_suspended()) GTEST_SKIP() << "this kernel does not suspend it";
  EXPECT_EQ(event.take().value(), 0U);
  EXPECT_TRUE(answers()) << "a call wakes the device";
  EXPECT_EQ(event.take().value(), 1U);
  EXPECT_TRUE(enter_low_power(device())) << "the kernel has left it";
}

TEST_P(LowPowerOnKernel, TakesEventsOnly) {
  EXPECT_EQ(enter_low_power(device(), EventRef()).error().code(), EINVAL);
  EXPECT_TRUE(enter_low_power(device(), EventRef()).error().refused());
  EXPECT_EQ(enter_low_power(device(), EventRef::of_fd(-1)).error().code(), EBADF);
  const int no_event = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const auto refused = enter_low_power(device(), EventRef::of_fd(no_event));
  ::close(no_event);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_FALSE(refused.error().refused());
  EXPECT_EQ(enter_low_power(device(), EventRef::of_fd(no_event)).error().code(), EBADF) << "closed";
  EXPECT_TRUE(enter_low_power(device())) << "it was not entered";
}

TEST_P(LowPowerOnKernel, EndsWithTheDevice) {
  ASSERT_TRUE(enter_low_power(device()));
  EXPECT_TRUE(device().reset()) << "a reset works meanwhile";
  ASSERT_TRUE(disk_->detach());
  EXPECT_EQ(enter_low_power(device()).error().code(), EBADF);
  EXPECT_EQ(exit_low_power(device()).error().code(), EBADF);
  disk_.reset();
  disk_.emplace(PciDevice::open(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value()).value());
  EXPECT_TRUE(enter_low_power(device()));
}

INSTANTIATE_TEST_SUITE_P(Backends, LowPowerOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace low_power_test
}  // namespace postern
