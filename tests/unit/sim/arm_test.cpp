// SPDX-License-Identifier: Apache-2.0
// The simulated Arm server: the ranges that can be mapped with its SMMUv3, as measured on QEMU's virt (Linux 7.3).
#include <gmock/gmock.h>

#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace arm_test {

constexpr PciAddress disk{.device = 1};

class OnArm : public ::testing::TestWithParam<const char*> {};

TEST_P(OnArm, TheWindowForInterruptsIsNotUsable) {
  sim::Kernel kernel(sim::arm());
  const auto device =
      attach(kernel, find_pci_function(kernel, disk).value().host, AttachOptions{.backend = GetParam()});
  ASSERT_TRUE(device) << device.error().message();
  const auto container = device->container();
  const std::vector<IovaRange> usable{{{0}, {0x7ffffff}}, {{0x8100000}, {0xffffffffffff}}};
  EXPECT_EQ(container->usable_ranges(), usable);
  EXPECT_EQ(container->page_sizes(), 0x40201000U);
}

INSTANTIATE_TEST_SUITE_P(Backends, OnArm, ::testing::Values("iommufd", "type1"),
                         [](const auto& test) { return std::string(test.param); });

TEST(ArmServer, SysfsShowsTheWindowAndTheUnit) {
  sim::Kernel kernel(sim::arm());
  std::string text;
  ASSERT_EQ(kernel.read_file("/sys/kernel/iommu_groups/1/reserved_regions", text), 0);
  EXPECT_EQ(text, "0x0000000008000000 0x00000000080fffff msi\n");
  ASSERT_EQ(kernel.read_link("/sys/bus/pci/devices/0000:00:01.0/iommu", text), 0);
  EXPECT_EQ(text, "/sys/class/iommu/smmu3.0x0000000009050000");
  EXPECT_EQ(kernel.read_file("/sys/class/iommu/dmar0/intel-iommu/ecap", text), -ENOENT);
}

}  // namespace arm_test
}  // namespace postern
