// SPDX-License-Identifier: Apache-2.0
// Devices that do not respond, even if the kernel reports a successful reset.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <algorithm>
#include <postern-nvme/controller.hpp>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <postern/reset_set.hpp>

namespace postern {
namespace answer_test {

using testing::AllOf;
using testing::HasSubstr;

// Can replace the BARs of its devices by memory that is all zeros.
class ZeroKernel : public sim::FailingKernel {
 public:
  using FailingKernel::FailingKernel;
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    if (fd < 0 || !zero) return FailingKernel::mmap(address, length, protection, flags, fd, offset);
    return FailingKernel::mmap(address, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | (flags & MAP_FIXED), -1, 0);
  }
  bool zero = false;
};

class SilentDevice : public testing::TestWithParam<std::string_view> {
 protected:
  PciDevice open() {
    const auto function = find_pci_function(kernel_, {.device = 1}).value();
    return PciDevice::open(attach(kernel_, function.host, {.backend = GetParam()}).value()).value();
  }
  void does_not_answer() {
    kernel_.answer_read = [](void* buffer, std::size_t length, std::uint64_t, ssize_t) {
      std::fill_n(static_cast<unsigned char*>(buffer), length, 0xff);
      return static_cast<ssize_t>(length);
    };
  }
  sim::Kernel simulated_;
  ZeroKernel kernel_{simulated_};
};

TEST_P(SilentDevice, IsToldOfAfterAResetThatTheKernelCallsDone) {
  PciDevice device = open();
  ASSERT_TRUE(device.reset());
  ASSERT_TRUE(device.check_responds());
  does_not_answer();
  const auto reset = device.reset();
  ASSERT_FALSE(reset);
  EXPECT_EQ(reset.error().code(), EIO);
  EXPECT_THAT(reset.error().message(),
              AllOf(HasSubstr("does not answer"), HasSubstr("0000:00:01.0/remove"), HasSubstr("pci/rescan")));
  EXPECT_FALSE(device.check_responds());
}

// The kernel waits for the device, and returns ENOTTY.
TEST_P(SilentDevice, IsWhyAHotResetFails) {
  for (const std::uint8_t number : {std::uint8_t{0}, std::uint8_t{1}}) {
    const auto twin = find_pci_function(kernel_, {.bus = 1, .function = number}).value();
    ASSERT_TRUE(bind_to_driver(kernel_, twin.host, "vfio-pci"));
  }
  const auto function = find_pci_function(kernel_, {.bus = 1}).value();
  const Device device = attach(kernel_, function.host, {.backend = GetParam()}).value();
  const auto set = ResetSet::of(device).value();
  ASSERT_TRUE(set.complete());
  does_not_answer();
  kernel_.answer = [](unsigned long request, void*, int result) {
    return request == VFIO_DEVICE_PCI_HOT_RESET ? -ENOTTY : result;
  };
  const auto reset = set.reset();
  ASSERT_FALSE(reset);
  EXPECT_EQ(reset.error().code(), ENOTTY);
  EXPECT_THAT(reset.error().message(), AllOf(HasSubstr("does not answer"), HasSubstr("pci/rescan")));
}

TEST_P(SilentDevice, IsNotTakenForOneOfAnotherClass) {
  PciDevice device = open();
  does_not_answer();
  const auto container = device.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto disk = nvme::Controller::open(device, iovas);
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().code(), EIO) << disk.error().message();
  EXPECT_THAT(disk.error().message(), AllOf(HasSubstr("does not answer"), HasSubstr("pci/rescan")));
}

TEST_P(SilentDevice, WithRegistersThatAreAllZeroIsNotTakenForOneOfAnotherCommandSet) {
  PciDevice device = open();
  kernel_.zero = true;
  const auto container = device.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto disk = nvme::Controller::open(device, iovas);
  ASSERT_FALSE(disk);
  EXPECT_EQ(disk.error().code(), EIO) << disk.error().message();
  EXPECT_THAT(disk.error().message(), HasSubstr("all zeroes"));
}

INSTANTIATE_TEST_SUITE_P(Backends, SilentDevice, testing::Values("type1", "iommufd"));

}  // namespace answer_test
}  // namespace postern
