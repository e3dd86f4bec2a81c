// SPDX-License-Identifier: Apache-2.0
// Mapping a region with an absurd length, or while another thread maps memory.
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/mman.h>

#include <cerrno>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/forwarding_kernel.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace region_map_test {

TEST(MappingARegion, ThatIsLongerThanAnyAddressSpaceIsRefusedWithoutAskingForIt) {
  sim::Kernel simulated;
  sim::FailingKernel kernel(simulated);
  for (const std::uint64_t length : {~std::uint64_t{0}, ~std::uint64_t{0} - 4095}) {
    kernel.answer = [length](unsigned long request, void* argument, int result) {
      if (request == VFIO_DEVICE_GET_REGION_INFO) static_cast<vfio_region_info*>(argument)->size = length;
      return result;
    };
    const auto device = attach(kernel, find_pci_function(kernel, {.device = 1}).value().host).value();
    kernel.fail_call(-1, 0);
    const auto mapped = device.map_region(0, 0, length);
    ASSERT_FALSE(mapped);
    EXPECT_EQ(mapped.error().code(), ENOMEM);
    EXPECT_EQ(kernel.calls(), 0);
  }
}

// Maps other memory at the address chosen for a region, as another thread may, and then refuses to map the region:
// Linux first unmaps the range, and then refuses.
class BusyKernel final : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;
  std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                     std::uint64_t offset) override {
    if (fd < 0) return ForwardingKernel::mmap(address, length, protection, flags, fd, offset);
    if ((flags & MAP_FIXED) != 0) ::munmap(address, length);
    others = ::mmap(address, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ++refused;
    return -code;
  }
  void* others = nullptr;
  int refused = 0;
  int code = EBUSY;
};

TEST(MappingARegion, ThatIsRefusedLeavesWhatAnotherThreadMapsMeanwhile) {
  constexpr std::size_t page = 4096;
  sim::Kernel simulated;
  BusyKernel kernel(simulated);
  const auto device = attach(kernel, find_pci_function(kernel, {.device = 1}).value().host).value();
  const auto mapped = device.map_region(VFIO_PCI_BAR0_REGION_INDEX, 0, page);
  ASSERT_FALSE(mapped);
  EXPECT_EQ(mapped.error().code(), EBUSY);
  EXPECT_EQ(kernel.refused, 1);
  ASSERT_EQ(::msync(kernel.others, page, MS_ASYNC), 0) << "it is not there any more";
  ::munmap(kernel.others, page);
}

// The chosen address is taken at each try; finally the kernel chooses one.
TEST(MappingARegion, IsTriedElsewhereWhereAnotherThreadIsFaster) {
  constexpr std::size_t page = 4096;
  class FasterKernel final : public ForwardingKernel {
   public:
    using ForwardingKernel::ForwardingKernel;
    std::intptr_t mmap(void* address, std::size_t length, int protection, int flags, int fd,
                       std::uint64_t offset) override {
      if (fd >= 0 && address != nullptr) return -EEXIST;
      return ForwardingKernel::mmap(address, length, protection, flags, fd, offset);
    }
  };
  sim::Kernel simulated;
  FasterKernel kernel(simulated);
  const auto device = attach(kernel, find_pci_function(kernel, {.device = 1}).value().host).value();
  const auto mapped = device.map_region(VFIO_PCI_BAR0_REGION_INDEX, 0, page);
  ASSERT_TRUE(mapped) << mapped.error().message();
  EXPECT_EQ(mapped->size(), page);
}

}  // namespace region_map_test
}  // namespace postern
