// SPDX-License-Identifier: Apache-2.0
// How to test a driver of your own without hardware: run it on the simulated kernel. Here the driver asks an NVMe
// controller for its version; yours gets its Kernel from outside, too.
#include <gtest/gtest.h>

#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>

using namespace postern;

static Result<std::uint32_t> nvme_version(Kernel& kernel, PciAddress where) {
  auto function = find_pci_function(kernel, where);
  if (!function) return failure_of(function);
  auto device = attach(kernel, function->host);
  if (!device) return failure_of(device);
  std::uint32_t version = 0;
  auto read = device->read(0, 8, std::as_writable_bytes(std::span(&version, 1)));  // BAR 0, register VS
  return read ? Result<std::uint32_t>(version) : failure_of(read);
}

TEST(MyDriver, ReadsTheVersion) {
  sim::Kernel kernel;
  const auto version = nvme_version(kernel, {.device = 1});
  ASSERT_TRUE(version) << version.error().message();
  EXPECT_EQ(*version, 0x00010400U);
}

TEST(MyDriver, SaysThatTheDeviceMustBeBound) {
  sim::Kernel kernel;
  const auto version = nvme_version(kernel, {.device = 2});  // which has the driver nvme
  ASSERT_FALSE(version);
  EXPECT_NE(version.error().message().find("postern bind 0000:00:02.0"), std::string::npos);
}

TEST(MyDriver, WorksOnAHostOfMyOwn) {
  sim::Kernel kernel({.functions = {{.address = {.bus = 7}, .iommu_group = 9}}, .locked_memory = 1 << 20});
  ASSERT_TRUE(bind_to_driver(kernel, find_pci_function(kernel, {.bus = 7})->host, "vfio-pci"));
  EXPECT_TRUE(nvme_version(kernel, {.bus = 7}));
}
