// SPDX-License-Identifier: Apache-2.0
// BARs smaller than a page on the simulated kernel, as in vfio_pci_probe_mmaps, vfio_pci_core_mmap, vfio_bar_fixup and
// vfio_pci_bar_rw (Linux 7.3).
#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <sys/mman.h>

#include <array>
#include <postern-sim/kernel.hpp>
#include <postern/fd.hpp>
#include <postern/pci_function.hpp>
#include <postern/registers.hpp>
#include <span>

#include "support/raw_device.hpp"

namespace postern {
namespace small_bars_test {

constexpr std::size_t page = 4096;
constexpr std::uint64_t bar(std::uint64_t index) { return index << 40; }

class SimulatedSmallBars : public ::testing::Test {
 protected:
  SimulatedSmallBars()
      : kernel_({.functions = {{.address = address,
                                .model = sim::HostFunction::Model::small_bars,
                                .iommu_group = 1,
                                .driver = "vfio-pci"}}}),
        device_(kernel_, find_pci_function(kernel_, address).value().host.cdev->path) {}

  vfio_region_info info(std::uint32_t index) {
    vfio_region_info info{.argsz = sizeof info, .flags = 0, .index = index};
    EXPECT_EQ(device_.ioctl(VFIO_DEVICE_GET_REGION_INFO, &info), 0);
    return info;
  }
  std::intptr_t map(std::uint64_t offset, std::size_t length) {
    const std::intptr_t mapped =
        kernel_.mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, device_.fd(), offset);
    if (!is_errno(mapped)) kernel_.munmap(reinterpret_cast<void*>(mapped), length);
    return mapped;
  }
  ssize_t read(std::uint64_t offset, std::span<std::byte> bytes) {
    return kernel_.pread(device_.fd(), bytes.data(), bytes.size(), offset);
  }

  static constexpr PciAddress address{.device = 1};
  sim::Kernel kernel_;
  test::RawDevice device_;
};

TEST_F(SimulatedSmallBars, OnlyMemoryThatIsAloneInItsPageCanBeMapped) {
  constexpr std::uint32_t access = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  EXPECT_EQ(info(0).flags, access);
  EXPECT_EQ(info(1).flags, access);
  EXPECT_EQ(info(2).flags, access | VFIO_REGION_INFO_FLAG_MMAP);
  EXPECT_EQ(info(0).size, 256U);
  EXPECT_EQ(info(1).size, 64U);
  EXPECT_EQ(info(2).size, 256U);
  EXPECT_EQ(info(3).size, 0U);
  EXPECT_EQ(info(3).flags, 0U);
  EXPECT_EQ(map(bar(0), page), -EINVAL);
  EXPECT_EQ(map(bar(1), page), -EINVAL);
  EXPECT_EQ(map(bar(2), 2 * page), -EINVAL);
  EXPECT_EQ(map(bar(2) + page, page), -EINVAL);
  EXPECT_EQ(map(bar(3), page), -EINVAL);
  EXPECT_FALSE(is_errno(map(bar(2), page))) << "with the rest of its page";
}

TEST_F(SimulatedSmallBars, AMappingShowsWhatTheFdWrites) {
  device_.write(bar(2) + 16, std::uint32_t{0xfeedbeef});
  const std::intptr_t mapped = kernel_.mmap(nullptr, page, PROT_READ, MAP_SHARED, device_.fd(), bar(2));
  ASSERT_FALSE(is_errno(mapped));
  const Mmap memory(kernel_, reinterpret_cast<void*>(mapped), page);
  EXPECT_EQ(registers_at<Register<std::uint32_t>>(memory.bytes(), 16).value()->read(), 0xfeedbeefU);
}

TEST_F(SimulatedSmallBars, AReadEndsWithTheBar) {
  std::array<std::byte, 512> bytes{};
  EXPECT_EQ(read(bar(0), bytes), 256);
  EXPECT_EQ(read(bar(0) + 250, bytes), 6);
  EXPECT_EQ(read(bar(0) + 256, bytes), -EINVAL);
  EXPECT_EQ(read(bar(1) + 3, bytes), 61);
  EXPECT_EQ(read(bar(3), bytes), -EINVAL);
}

TEST_F(SimulatedSmallBars, MemoryThatIsOffIsAnErrorAndPortsThatAreOffAreNobodys) {
  device_.write(bar(0), std::uint32_t{1});
  device_.write(bar(1), std::uint32_t{2});
  std::array<std::byte, 2> command{};
  ASSERT_EQ(read(test::RawDevice::config + PCI_COMMAND, command), 2);
  EXPECT_EQ(command[0], std::byte{PCI_COMMAND_IO | PCI_COMMAND_MEMORY}) << "both were on";
  device_.write(test::RawDevice::config + PCI_COMMAND, std::uint16_t{0});
  std::array<std::byte, 4> word{};
  EXPECT_EQ(read(bar(0), word), -EIO);
  EXPECT_EQ(device_.read(bar(1)), ~0U);
  device_.write(bar(1), std::uint32_t{3});
  device_.write(test::RawDevice::config + PCI_COMMAND, std::uint16_t{PCI_COMMAND_IO});
  EXPECT_EQ(device_.read(bar(1)), 2U);
}

TEST_F(SimulatedSmallBars, ConfigSpaceTellsTheirSizesAndKinds) {
  const auto size_bits = [&](std::uint64_t index) {
    const std::uint64_t at = test::RawDevice::config + PCI_BASE_ADDRESS_0 + 4 * index;
    device_.write(at, ~std::uint32_t{0});
    return device_.read(at);
  };
  EXPECT_EQ(size_bits(0), 0xffffff00U);
  EXPECT_EQ(size_bits(1), 0xffffffc0U | PCI_BASE_ADDRESS_SPACE_IO);
  EXPECT_EQ(size_bits(2), 0xffffff00U);
  EXPECT_EQ(size_bits(3), 0U) << "it has none";
}

TEST_F(SimulatedSmallBars, ConfigSpaceEndsAt256Bytes) {
  EXPECT_EQ(info(VFIO_PCI_CONFIG_REGION_INDEX).size, 256U);
  std::array<std::byte, 4> word{};
  EXPECT_EQ(read(test::RawDevice::config + 252, word), 4);
  EXPECT_EQ(read(test::RawDevice::config + 254, word), -EFAULT);
  EXPECT_EQ(read(test::RawDevice::config + 256, word), -EFAULT);
}

}  // namespace small_bars_test
}  // namespace postern
