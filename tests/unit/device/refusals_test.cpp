// SPDX-License-Identifier: Apache-2.0
// Explanations of the kernel's errors for parts of a device; the errno stays the kernel's.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace refusals_test {

using testing::AllOf;
using testing::HasSubstr;

class HeldKernel : public sim::FailingKernel {
 public:
  using FailingKernel::FailingKernel;
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    return fd >= 0 && held ? -EBUSY : FailingKernel::mmap(address, length, protection, flags, fd, offset);
  }
  bool held = false;
};

class Refusals : public testing::Test {
 protected:
  sim::Kernel simulated_;
  HeldKernel kernel_{simulated_};
  PciDevice device_ =
      PciDevice::open(attach(kernel_, find_pci_function(kernel_, {.device = 1}).value().host).value()).value();
};

TEST_F(Refusals, OfABarThatTheBootDisplayHoldsSayWhoHoldsIt) {
  kernel_.held = true;
  kernel_.answer_read = [](void*, std::size_t, std::uint64_t, ssize_t) -> ssize_t { return -EBUSY; };
  const auto mapped = device_.map_bar(0);
  ASSERT_FALSE(mapped);
  EXPECT_EQ(mapped.error().code(), EBUSY);
  EXPECT_THAT(mapped.error().message(), AllOf(HasSubstr("framebuffer"), HasSubstr("/proc/iomem")));
  std::array<std::byte, 4> bytes{};
  const auto read = device_.device().read(0, 0, bytes);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().code(), EBUSY);
  EXPECT_THAT(read.error().message(), HasSubstr("framebuffer"));
}

TEST_F(Refusals, OfMaskingSayThatTheKindCannotBeMasked) {
  constexpr std::uint32_t msix = 2;
  const auto masked = device_.device().mask_interrupt(msix, 0);
  ASSERT_FALSE(masked);
  EXPECT_EQ(masked.error().code(), ENOTTY);
  EXPECT_THAT(masked.error().message(), HasSubstr("does not mask interrupts of this kind"));
}

TEST_F(Refusals, OfAResetWhileTheDeviceLeavesSayThatItDoes) {
  kernel_.fail_ioctl(VFIO_DEVICE_RESET, EAGAIN);
  const auto reset = device_.reset();
  ASSERT_FALSE(reset);
  EXPECT_EQ(reset.error().code(), EAGAIN);
  EXPECT_THAT(reset.error().message(), HasSubstr("being unbound, removed or reset"));
}

}  // namespace refusals_test
}  // namespace postern
