// SPDX-License-Identifier: Apache-2.0
// Interrupts, checked against the kernel's handlers in /proc/interrupts.
#include <gmock/gmock.h>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace interrupts_test {

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
  // The number of a device's vectors in /proc/interrupts, which lists each as "vfio-msix[2](0000:00:01.0)".
  static int vectors_in_proc(const std::string& device) {
    std::string text;
    EXPECT_EQ(system_kernel().read_file("/proc/interrupts", text), 0);
    int count = 0;
    for (auto at = text.find("(" + device + ")"); at != std::string::npos; at = text.find("(" + device + ")", at + 1))
      ++count;
    return count;
  }
};

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

}  // namespace interrupts_test
}  // namespace postern
