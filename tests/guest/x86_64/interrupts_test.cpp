// SPDX-License-Identifier: Apache-2.0
// Interrupts that really arrive: from QEMU's edu device, and as the kernel's own list of handlers has them.
#include <gmock/gmock.h>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using test::Bound;

class InterruptsOnKernel : public ::testing::TestWithParam<const char*> {
 protected:
  static PciDevice open(const Bound& bound) {
    return PciDevice::open(attach(system_kernel(), bound.host(), {.backend = GetParam()}).value()).value();
  }
  static std::vector<Event> events(std::size_t count) {
    std::vector<Event> made;
    for (std::size_t i = 0; i < count; ++i) made.push_back(Event::create(system_kernel()).value());
    return made;
  }
  // How many of a device's vectors the kernel has handlers for, as /proc/interrupts has them:
  // "vfio-msix[2](0000:00:01.0)".
  static int vectors_in_proc(const std::string& device) {
    std::string text;
    EXPECT_EQ(system_kernel().read_file("/proc/interrupts", text), 0);
    int count = 0;
    for (auto at = text.find("(" + device + ")"); at != std::string::npos; at = text.find("(" + device + ")", at + 1))
      ++count;
    return count;
  }
  // The edu device's registers.
  static void write_edu(const PciDevice& edu, std::uint64_t offset, std::uint32_t value) {
    ASSERT_TRUE(edu.device().write(0, offset, std::as_bytes(std::span(&value, 1))));
  }
};

TEST_P(InterruptsOnKernel, MsiArrives) {
  const Bound bound(test::edu);
  const PciDevice edu = open(bound);
  ASSERT_TRUE(edu.enable_bus_master());
  const auto event = events(1);
  ASSERT_TRUE(edu.enable(PciInterrupt::msi, event));
  EXPECT_EQ(event[0].take().value(), 0U);
  write_edu(edu, 0x60, 1);
  EXPECT_EQ(event[0].wait(10s).value(), 1U);
  write_edu(edu, 0x64, 1);
  ASSERT_TRUE(edu.disable(PciInterrupt::msi));
  write_edu(edu, 0x60, 1);
  EXPECT_EQ(event[0].wait(100ms).value(), 0U) << "it is off";
  write_edu(edu, 0x64, 1);
}

TEST_P(InterruptsOnKernel, IntxArrivesOnceUntilItIsUnmasked) {
  const Bound bound(test::edu);
  const PciDevice edu = open(bound);
  const auto event = events(1);
  ASSERT_TRUE(edu.enable(PciInterrupt::intx, event));
  write_edu(edu, 0x60, 1);
  EXPECT_EQ(event[0].wait(10s).value(), 1U);
  EXPECT_EQ(event[0].wait(100ms).value(), 0U) << "it masked itself, though the line is still up";
  ASSERT_TRUE(edu.device().unmask_interrupt(0, 0));
  EXPECT_EQ(event[0].wait(10s).value(), 1U) << "the line is still up";
  write_edu(edu, 0x64, 1);
  ASSERT_TRUE(edu.device().unmask_interrupt(0, 0));
  ASSERT_TRUE(edu.device().mask_interrupt(0, 0));
  ASSERT_TRUE(edu.disable(PciInterrupt::intx));
}

TEST_P(InterruptsOnKernel, MsixVectorsAreTurnedOnTogetherAndMoreAreAddedLater) {
  const Bound bound(test::nvme_disk);
  const PciDevice disk = open(bound);
  ASSERT_TRUE(disk.interrupt(PciInterrupt::msix).resizable) << "Linux 6.5 and newer";
  const auto first = events(3);
  const auto later = events(2);
  ASSERT_TRUE(disk.enable(PciInterrupt::msix, first));
  EXPECT_EQ(vectors_in_proc(disk.name()), 3);
  ASSERT_TRUE(disk.add(PciInterrupt::msix, 3, later));
  EXPECT_EQ(vectors_in_proc(disk.name()), 5);
  ASSERT_TRUE(disk.disable(PciInterrupt::msix));
  EXPECT_EQ(vectors_in_proc(disk.name()), 0);
}

INSTANTIATE_TEST_SUITE_P(Backends, InterruptsOnKernel, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace postern
