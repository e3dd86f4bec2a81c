// SPDX-License-Identifier: Apache-2.0
// What sPAPR counts as locked memory, on hosts that are made up; the figures are those of real kernels.
#include "iommu/spapr/locked_memory.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "support/tree_kernel.hpp"

namespace postern::spapr {
namespace locked_memory_test {

using namespace std::string_literals;

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t gib = 1 << 30;
const std::string tree = "/sys/firmware/devicetree/base";
const std::string bridge = tree + "/pci@800000020000000";

HostDevice device_of(const std::string& domain, std::uint32_t group) {
  HostDevice device;
  device.name = domain + ":00:00.0";
  device.sysfs_path = "/sys/bus/pci/devices/" + device.name;
  device.iommu_group = GroupId{group};
  return device;
}

// A partition of a POWER machine, with a device on a host bridge.
class SpaprLockedMemory : public ::testing::Test {
 protected:
  SpaprLockedMemory() {
    kernel_.file("/proc/device-tree/compatible", "qemu,pseries\0"s);
    kernel_.file(tree + "/#address-cells", "\0\0\0\x02"s);  // a property, which is listed with the nodes
    kernel_.directory(bridge + "/mass-storage@0");
    set_window("\x40\0\0\0"s);
    link_to("pci@800000020000000/mass-storage@0");
  }
  void set_window(const std::string& low_word) {
    kernel_.file(bridge + "/ibm,dma-window", "\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"s + low_word);
  }
  void link_to(const std::string& node) {
    kernel_.link(device_.sysfs_path + "/of_node", "../../../firmware/devicetree/base/" + node);
  }
  std::vector<LockedMemoryNeed> needs(std::uint64_t bytes, const std::vector<HostDevice>& devices) {
    auto found = locked_memory(kernel_, {.mapped = bytes, .distinct = bytes}, devices);
    EXPECT_TRUE(found) << found.error().message();
    EXPECT_EQ(found->size(), bytes <= gib ? 2U : 1U) << "version 1 has the default window alone";
    return found.value();
  }
  std::vector<LockedMemoryNeed> needs(std::uint64_t bytes) { return needs(bytes, {device_}); }
  std::uint64_t tables_for(std::uint64_t bytes) { return needs(bytes).front().each; }

  test::TreeKernel kernel_;
  HostDevice device_ = device_of("0000", 0);
};

TEST_F(SpaprLockedMemory, IsWhatTheKernelsWereSeenToCount) {
  const auto partition = needs(8 * mib);
  EXPECT_EQ(partition[0].version, 2U);
  EXPECT_EQ(partition[0].each, 2 * mib);
  EXPECT_EQ(partition[0].at_most(), 10 * mib);
  EXPECT_EQ(partition[0].what, "8 MiB to be mapped and 2 MiB for tables");
  EXPECT_EQ(partition[1].version, 1U);
  EXPECT_EQ(partition[1].at_most(), gib + 2 * mib);
  EXPECT_EQ(partition[1].what, "1026 MiB for its whole window and table");
  kernel_.file("/proc/device-tree/compatible", "qemu,powernv9\0ibm,powernv\0"s);
  const auto bare = needs(8 * mib);
  EXPECT_EQ(bare[0].each, 8 * mib);
  EXPECT_EQ(bare[0].at_most(), 16 * mib);
  EXPECT_EQ(bare[1].at_most(), 2 * gib + 8 * mib);
  for (const auto* both : {&partition, &bare}) {
    for (const LockedMemoryNeed& need : *both) EXPECT_EQ(need.counter, LockedMemoryCounter::process);
  }
}

TEST_F(SpaprLockedMemory, HasASecondTableWhereTheDefaultWindowIsTooSmall) {
  EXPECT_EQ(tables_for(gib), 2 * mib);
  EXPECT_EQ(tables_for(3 * gib), 2 * mib + 8 * mib);
}

TEST_F(SpaprLockedMemory, OfMoreThanAnyWindowIsMoreThanAnyLimit) {
  constexpr std::uint64_t all = std::numeric_limits<std::uint64_t>::max();
  EXPECT_EQ(needs(all).front().at_least(), all);
}

TEST_F(SpaprLockedMemory, CountsMemoryThatIsMappedTwiceOnce) {
  const auto found = locked_memory(kernel_, {.mapped = 16 * mib, .distinct = 8 * mib}, std::span(&device_, 1));
  ASSERT_TRUE(found);
  EXPECT_EQ(found->front().at_most(), 10 * mib);
}

TEST_F(SpaprLockedMemory, OfSeveralContainersHasTheirTablesAndTheMemoryOnce) {
  HostDevice other = device_of("0001", 1);
  kernel_.link(other.sysfs_path + "/of_node", "../../../firmware/devicetree/base/pci@800000020000000/disk@1");
  const auto apart = needs(8 * mib, {device_, other});
  EXPECT_EQ(apart[0].containers_at_least, 2U) << "they are on different host bridges";
  EXPECT_EQ(apart[0].containers_at_most, 2U);
  EXPECT_EQ(apart[0].at_most(), 8 * mib + 2 * (2 * mib));
  EXPECT_EQ(apart[1].at_least(), 2 * (gib + 2 * mib)) << "version 1 has one group a container";
  kernel_.file("/proc/device-tree/compatible", "ibm,powernv\0"s);
  EXPECT_EQ(needs(8 * mib, {device_, other})[0].containers_at_least, 1U);
}

TEST_F(SpaprLockedMemory, TakesTheDefaultWindowFromAboveTheDevice) {
  link_to("pci@800000020000000/pci@1/pci@2/mass-storage@0");
  EXPECT_EQ(needs(0)[1].each, gib + 2 * mib);
  kernel_.file(bridge + "/ibm,dma-window", "\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0"s);
  EXPECT_EQ(needs(0)[1].each, 4 * gib + 8 * mib);
}

TEST_F(SpaprLockedMemory, OfTheHostIsThatOfItsFirstBridge) { EXPECT_EQ(needs(0, {})[1].each, gib + 2 * mib); }

TEST_F(SpaprLockedMemory, IsUnknownWhereTheDeviceTreeIsSilent) {
  const auto code = [&](std::span<const HostDevice> devices) {
    const auto found = locked_memory(kernel_, {}, devices);
    return found ? 0 : found.error().code();
  };
  set_window("short"s);
  EXPECT_EQ(code(std::span(&device_, 1)), ENODEV);
  kernel_.remove(bridge + "/ibm,dma-window");
  EXPECT_EQ(code(std::span(&device_, 1)), ENODEV);
  kernel_.remove(device_.sysfs_path + "/of_node");
  EXPECT_EQ(code(std::span(&device_, 1)), ENODEV);
  EXPECT_EQ(code({}), ENODEV);
  kernel_.reading_gives("/proc/device-tree/compatible", -EIO);
  EXPECT_EQ(code({}), EIO);
  kernel_.reading_gives("/proc/device-tree/compatible", 0);
  kernel_.reading_gives(device_.sysfs_path + "/of_node", -EACCES);
  EXPECT_EQ(code(std::span(&device_, 1)), EACCES);
}

}  // namespace locked_memory_test
}  // namespace postern::spapr
