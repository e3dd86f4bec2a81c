// SPDX-License-Identifier: Apache-2.0
// Resets with the groups of sPAPR: on the bare machine (powernv) below root ports, and under a hypervisor (pseries),
// where nothing is above a device.
#include <gmock/gmock.h>

#include <postern/reset_set.hpp>

#include "support/host_devices.hpp"

namespace postern {
namespace {

using test::Bound;
using ::testing::HasSubstr;

bool on_powernv() {
  std::string names;
  EXPECT_EQ(system_kernel().read_file("/proc/device-tree/compatible", names), 0);
  return names.find("ibm,powernv") != std::string::npos;
}

PciAddress edu() { return {.domain = 3, .bus = static_cast<std::uint8_t>(on_powernv() ? 1 : 0)}; }

class ResetOnPower : public ::testing::TestWithParam<test::Interface> {};

TEST_P(ResetOnPower, ADeviceBelowARootPortIsHotResetWithTheProofOfItsGroup) {
  const Bound bound(edu());
  const Device device = attach(system_kernel(), bound.host(), test::options_for(GetParam())).value();
  const auto set = ResetSet::of(device);
  if (!on_powernv()) {
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code(), ENODEV);
    EXPECT_THAT(set.error().message(), HasSubstr("root bus"));
    return;
  }
  ASSERT_TRUE(set) << set.error().message();
  ASSERT_EQ(set->members().size(), 1U);
  EXPECT_EQ(set->members()[0].group, bound.host().iommu_group);
  EXPECT_TRUE(set->complete());
  const auto done = set->reset();
  EXPECT_TRUE(done) << done.error().message();
}

TEST_P(ResetOnPower, AFunctionsResetTellsWhichWayItWent) {
  const Bound bound(test::first_nvme());
  const auto disk =
      PciDevice::open(attach(system_kernel(), bound.host(), test::options_for(GetParam())).value()).value();
  EXPECT_EQ(disk.reset().value(), "flr");
}

INSTANTIATE_TEST_SUITE_P(Backends, ResetOnPower, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace
}  // namespace postern
