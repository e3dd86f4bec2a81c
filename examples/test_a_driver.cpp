// SPDX-License-Identifier: Apache-2.0
// How to test your own driver without hardware: run it on the simulated kernel. This driver reads the version of an
// NVMe controller; yours must take its Kernel as a parameter, too.
#include <gtest/gtest.h>

#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>

using namespace postern;

static Result<std::uint32_t> nvme_version(Kernel& kernel, PciAddress where) {
  auto function = POSTERN_TRY(find_pci_function(kernel, where));
  auto device = POSTERN_TRY(attach(kernel, function.host));
  std::uint32_t version = 0;
  POSTERN_TRY(device.read(0, 8, std::as_writable_bytes(std::span(&version, 1))));  // BAR 0, register VS
  return version;
}

TEST(MyDriver, ReadsTheVersion) {
  sim::Kernel kernel;
  const auto version = nvme_version(kernel, {.device = 1});
  ASSERT_TRUE(version) << version.error().message();
  EXPECT_EQ(*version, 0x00010400U);
}

TEST(MyDriver, SaysThatTheDeviceMustBeBound) {
  sim::Kernel kernel;
  const auto version = nvme_version(kernel, {.device = 2});  // bound to the driver nvme
  ASSERT_FALSE(version);
  EXPECT_EQ(version.error().kind(), ErrorKind::not_bound);
}

TEST(MyDriver, WorksOnAHostOfMyOwn) {
  sim::Kernel kernel({.functions = {{.address = {.bus = 7}, .iommu_group = 9}}, .locked_memory = 1 << 20});
  ASSERT_TRUE(bind_to_driver(kernel, find_pci_function(kernel, {.bus = 7})->host, "vfio-pci"));
  EXPECT_TRUE(nvme_version(kernel, {.bus = 7}));
}
