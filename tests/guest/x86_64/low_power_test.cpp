// SPDX-License-Identifier: Apache-2.0
// A mapped BAR in low power, which the simulated kernel cannot take away.
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <postern/low_power.hpp>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace low_power_test {

class MappedBarInLowPower : public ::testing::TestWithParam<test::Interface> {};

// The signal that ends a child which reads these bytes; 0: none.
int signal_of_reading(const std::byte* bytes) {
  const pid_t child = ::fork();
  if (child == 0) {
    (void)*static_cast<const volatile std::byte*>(bytes);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST_P(MappedBarInLowPower, IsNotAccessibleUntilItIsLeft) {
  const test::Bound bound(test::nvme_disk);
  auto disk = PciDevice::open(attach(system_kernel(), bound.host(), test::options_for(GetParam())).value()).value();
  ASSERT_TRUE(disk.enable_memory());
  const Mmap bar = disk.device().map_region(0, 0, 4096).value();
  EXPECT_EQ(signal_of_reading(bar.data()), 0);
  ASSERT_TRUE(enter_low_power(disk.device()));
  EXPECT_EQ(signal_of_reading(bar.data()), SIGBUS);
  ASSERT_TRUE(exit_low_power(disk.device()));
  EXPECT_EQ(signal_of_reading(bar.data()), 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, MappedBarInLowPower, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace low_power_test
}  // namespace postern
