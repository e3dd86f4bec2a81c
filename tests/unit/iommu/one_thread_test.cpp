// SPDX-License-Identifier: Apache-2.0
// Two threads that use one container at once: a debug build of the library reports the second.
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <sys/mman.h>

#include <future>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/dirty_tracker.hpp>
#include <postern/pci_function.hpp>
#include <thread>

#include "base/one_thread.hpp"

namespace postern {
namespace one_thread_test {

using ::testing::HasSubstr;

// Blocks a thread in IOMMU_IOAS_MAP until the test releases it.
class HoldingKernel final : public sim::FailingKernel {
 public:
  using FailingKernel::FailingKernel;
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request == IOMMU_IOAS_MAP) {
      is_held.set_value();
      let_go.get_future().wait();
    }
    return FailingKernel::ioctl(fd, request, argument);
  }
  std::promise<void> is_held;
  std::promise<void> let_go;
};

TEST(OneThread, ASecondIsReportedAndChangesNothing) {
#ifdef NDEBUG
  GTEST_SKIP() << "this build does not check it";
#endif
  constexpr std::uint64_t page = 4096;
  sim::Kernel simulated;
  HoldingKernel kernel(simulated);
  const auto device = attach(kernel, find_pci_function(kernel, {.device = 1})->host, {.backend = "iommufd"}).value();
  Container& container = *device.container();
  void* const address = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const Mmap memory(system_kernel(), address, page);
  Result<void> first;
  std::thread mapping([&] { first = container.map({0x10000000}, memory.bytes()); });
  kernel.is_held.get_future().wait();
  const auto second = container.map({0x20000000}, memory.bytes());
  const auto tracking = container.get<DirtyTracker>()->start();
  const auto stopping = container.get<DirtyTracker>()->stop();
  kernel.let_go.set_value();
  mapping.join();
  EXPECT_TRUE(first);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EBUSY);
  EXPECT_THAT(second.error().message(), HasSubstr("another thread is using the container"));
  EXPECT_EQ(tracking.error().code(), EBUSY);
  EXPECT_EQ(stopping.error().code(), EBUSY);
  EXPECT_EQ(container.mapping_count(), 1U);
  EXPECT_TRUE(container.unmap_all()) << "one after the other they may";
}

TEST(OneThread, CallsOfOneThreadMayNest) {
  OneThread object;
  const OneThread::Use outer(object);
  const OneThread::Use inner(object);
  EXPECT_TRUE(outer);
  EXPECT_TRUE(inner);
}

}  // namespace one_thread_test
}  // namespace postern
