// SPDX-License-Identifier: Apache-2.0
// A DMA buffer leaves nothing behind, except memory that the kernel refuses to unmap.
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <sys/mman.h>

#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/pci_function.hpp>
#include <postern/scoped_mapping.hpp>

namespace postern {
namespace dma_buffer_test {

constexpr std::uint64_t page = 4096;

class DmaBufferTest : public ::testing::Test {
 protected:
  // Whether memory is mapped at this address.
  static bool is_there(void* address) { return ::msync(address, page, MS_ASYNC) == 0; }
  std::shared_ptr<Container> container() { return device_.container(); }

  sim::Kernel simulated_;
  sim::FailingKernel kernel_{simulated_};
  Device device_ =
      attach(kernel_, find_pci_function(kernel_, {.device = 1}).value().host, {.backend = "iommufd"}).value();
  IovaAllocator iovas_{container()->usable_ranges(), container()->page_sizes()};
};

TEST_F(DmaBufferTest, LeavesNothing) {
  void* address = nullptr;
  {
    const auto buffer = DmaBuffer::allocate(container(), iovas_, page).value();
    address = buffer.data();
    EXPECT_TRUE(is_there(address));
  }
  EXPECT_FALSE(is_there(address));
  EXPECT_EQ(container()->mapping_count(), 0U);
}

TEST_F(DmaBufferTest, OfMoreThanCanBeRoundedUpIsNotOneOfNothing) {
  const auto buffer = DmaBuffer::allocate(container(), iovas_, ~std::uint64_t{0});
  ASSERT_FALSE(buffer);
  EXPECT_EQ(buffer.error().code(), EOVERFLOW);
  EXPECT_EQ(buffer.error().object().find("of 0 bytes"), std::string::npos) << buffer.error().message();
}

TEST_F(DmaBufferTest, ThatIsUnmappedAlreadyLeavesNothingEither) {
  void* address = nullptr;
  Iova iova;
  {
    const auto buffer = DmaBuffer::allocate(container(), iovas_, page).value();
    address = buffer.data();
    iova = buffer.iova();
    ASSERT_TRUE(container()->unmap_all());
  }
  EXPECT_FALSE(is_there(address));
  EXPECT_EQ(iovas_.allocate(page).value(), iova);
}

TEST_F(DmaBufferTest, ThatTheKernelRefusesToUnmapKeepsItsIovaAndItsMemory) {
  void* address = nullptr;
  Iova iova;
  {
    const auto buffer = DmaBuffer::allocate(container(), iovas_, page).value();
    address = buffer.data();
    iova = buffer.iova();
    kernel_.fail_ioctl(IOMMU_IOAS_UNMAP, EIO);
  }
  EXPECT_NE(iovas_.allocate(page).value(), iova);
  EXPECT_TRUE(is_there(address)) << "a device that joins would be shown whatever came there";
  kernel_.fail_ioctl(0, 0);
  EXPECT_TRUE(container()->unmap_all());
}

TEST_F(DmaBufferTest, ReportsWhatTheKernelRefusesAndCanBeReleasedAgain) {
  auto buffer = DmaBuffer::allocate(container(), iovas_, page).value();
  const Iova iova = buffer.iova();
  void* const address = buffer.data();
  kernel_.fail_ioctl(IOMMU_IOAS_UNMAP, EIO);
  const auto refused = buffer.release();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EIO);
  EXPECT_EQ(buffer.data(), address);
  EXPECT_TRUE(is_there(address));
  kernel_.fail_ioctl(0, 0);
  EXPECT_TRUE(buffer.release());
  EXPECT_FALSE(is_there(address));
  EXPECT_EQ(container()->mapping_count(), 0U);
  EXPECT_EQ(iovas_.allocate(page).value(), iova);
  EXPECT_TRUE(buffer.release()) << "nothing is left to do";
}

TEST_F(DmaBufferTest, OfNothingOrInNoContainerIsRefused) {
  const auto empty = DmaBuffer::allocate(container(), 0);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code(), EINVAL);
  EXPECT_TRUE(empty.error().refused()) << empty.error().message();
  EXPECT_THAT(empty.error().message(), ::testing::HasSubstr("the length is zero"));
  EXPECT_EQ(DmaBuffer::allocate(nullptr, page).error().code(), EINVAL);
  std::vector<std::byte> bytes(page);
  EXPECT_EQ(ScopedMapping::map(nullptr, {page}, std::span(bytes)).error().code(), EINVAL);
}

}  // namespace dma_buffer_test
}  // namespace postern
