// SPDX-License-Identifier: Apache-2.0
// Names for the numbers of PCI and VFIO.
#include "text/names.hpp"

#include <gtest/gtest.h>

namespace postern::tool {
namespace names_test {

PciFunction function() {
  PciFunction function;
  function.vendor_id = 0x1b36;
  function.device_id = 0x0010;
  function.class_code = 0x010802;
  return function;
}

TEST(Title, IsTheVendorAndTheDevice) {
  const PciNames names{.vendor = "Red Hat, Inc.", .device = "QEMU NVM Express Controller", .device_class = {}};
  EXPECT_EQ(title_of(function(), names), "Red Hat, Inc. QEMU NVM Express Controller");
}

TEST(Title, DoesNotSayTheVendorTwice) {
  EXPECT_EQ(title_of(function(), {.vendor = "NVIDIA", .device = "NVIDIA H100", .device_class = {}}), "NVIDIA H100");
}

TEST(Title, IsTheClassWhereNothingElseIsKnown) {
  EXPECT_EQ(title_of(function(), {}), "class 010802");
  const PciNames names{.vendor = {}, .device = {}, .device_class = "Non-Volatile memory controller"};
  EXPECT_EQ(title_of(function(), names), "Non-Volatile memory controller");
}

TEST(CapabilityName, TellsPlainAndExtendedIdsApart) {
  EXPECT_EQ(capability_name({.id = 0x01, .offset = 0x40, .extended = false}), "Power Management");
  EXPECT_EQ(capability_name({.id = 0x11, .offset = 0x40, .extended = false}), "MSI-X");
  EXPECT_EQ(capability_name({.id = 0x01, .offset = 0x100, .extended = true}), "Advanced Error Reporting");
  EXPECT_EQ(capability_name({.id = 0x10, .offset = 0x100, .extended = true}), "SR-IOV");
  EXPECT_EQ(capability_name({.id = 0x2f, .offset = 0x100, .extended = true}), "Device 3");
}

TEST(CapabilityName, IsTheNumberWhereThereIsNone) {
  EXPECT_EQ(capability_name({.id = 0x33, .offset = 0x40, .extended = false}), "capability 0x33");
  EXPECT_EQ(capability_name({.id = 0x99, .offset = 0x100, .extended = true}), "extended capability 0x0099");
}

TEST(RegionName, CountsTheDevicesOwnFromZero) {
  EXPECT_EQ(region_name(0), "BAR 0");
  EXPECT_EQ(region_name(7), "config space");
  EXPECT_EQ(region_name(9), "device-specific 0");
}

TEST(InterruptName, IsThatOfPci) {
  EXPECT_EQ(interrupt_name(0), "INTx");
  EXPECT_EQ(interrupt_name(2), "MSI-X");
  EXPECT_EQ(interrupt_name(5), "interrupt 5");
}

TEST(FunctionJson, HasNullWhereThereIsNoDriverAndNoGroup) {
  const Json json = function_json(function());
  EXPECT_TRUE(json["driver"].is_null());
  EXPECT_TRUE(json["iommu_group"].is_null());
  EXPECT_EQ(json["class"], "010802");
}

}  // namespace names_test
}  // namespace postern::tool
