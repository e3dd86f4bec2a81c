// SPDX-License-Identifier: Apache-2.0
// GuestConfig on the kernel under test: a guest finds the device's registers, and its own writes to BARs, MSI and MSI-X
// stay with it.
#include <postern/guest_config.hpp>

#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include <postern/msix_table.hpp>

#include "support/edu.hpp"
#include "support/host_devices.hpp"

namespace postern {
namespace guest_config_contract {

class GuestConfigOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  static PciDevice open(const test::Bound& bound) {
    return PciDevice::open(attach(test::kernel(), bound.host(), test::options_for(GetParam())).value()).value();
  }
  static std::vector<std::uint32_t> config_of(const PciDevice& device) {
    std::vector<std::uint32_t> words;
    for (std::uint16_t at = 0; at < 256; at += 4) words.push_back(device.read_config<std::uint32_t>(at).value());
    return words;
  }
};

TEST_P(GuestConfigOnKernel, SizesBarsAndEnablesMsixWithoutTheDevice) {
  const test::Bound bound(test::first_nvme());
  const PciDevice disk = open(bound);
  auto config = GuestConfig::of(disk).value();
  const auto before = config_of(disk);
  EXPECT_EQ(config.read(disk, PCI_VENDOR_ID, 4).value(), before[0]);
  EXPECT_EQ(config.read(disk, PCI_CLASS_DEVICE, 2).value(), before[2] >> 16);
  ASSERT_TRUE(config.write(disk, PCI_BASE_ADDRESS_0, 4, ~std::uint32_t{0}));
  const std::uint32_t sized = config.read(disk, PCI_BASE_ADDRESS_0, 4).value();
  EXPECT_EQ(~(sized & ~std::uint32_t{0xf}) + 1, disk.device().regions()[0].length);
  EXPECT_EQ(config.bar(0).size, disk.device().regions()[0].length);
  const auto msix = static_cast<std::uint16_t>(disk.find_capability(PCI_CAP_ID_MSIX)->offset + PCI_MSIX_FLAGS);
  ASSERT_TRUE(config.write(disk, msix, 2, PCI_MSIX_FLAGS_ENABLE));
  EXPECT_TRUE(config.msix_is_on());
  EXPECT_EQ((config.read(disk, msix, 2).value() & PCI_MSIX_FLAGS_QSIZE) + 1, find_msix(disk)->count);
  EXPECT_EQ(config_of(disk), before);
}

// A kernel keeps MSI's enable bit only once vectors are enabled; the guest's stays in any case.
TEST_P(GuestConfigOnKernel, KeepsTheGuestsMsi) {
  const auto edu = test::find_edu();
  if (!edu) GTEST_SKIP() << "this host has no edu device";
  const test::Bound bound(*edu);
  const PciDevice device = open(bound);
  const PciCapability* const msi = device.find_capability(PCI_CAP_ID_MSI);
  ASSERT_NE(msi, nullptr);
  const auto flags = static_cast<std::uint16_t>(msi->offset + PCI_MSI_FLAGS);
  ASSERT_TRUE(device.write_config<std::uint16_t>(flags, PCI_MSI_FLAGS_ENABLE));
  EXPECT_EQ(device.read_config<std::uint16_t>(flags).value() & PCI_MSI_FLAGS_ENABLE, 0);
  auto config = GuestConfig::of(device).value();
  ASSERT_TRUE(config.write(device, flags, 2, PCI_MSI_FLAGS_ENABLE));
  EXPECT_TRUE(config.msi().is_on);
  EXPECT_EQ(config.msi().count, 1U);
  ASSERT_TRUE(config.reset(device));
  EXPECT_FALSE(config.msi().is_on);
}

INSTANTIATE_TEST_SUITE_P(Backends, GuestConfigOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace guest_config_contract
}  // namespace postern
