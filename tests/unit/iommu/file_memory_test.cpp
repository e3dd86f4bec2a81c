// SPDX-License-Identifier: Apache-2.0
// Files as memory: containers on an old or failing kernel, and checks made before calling it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/dma_windows.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace file_memory_test {

using ::testing::HasSubstr;

constexpr std::uint64_t page = 4096;
constexpr Iova base{0x10000000};

class FileMemory : public ::testing::Test {
 protected:
  std::shared_ptr<const Fd> make_file(std::uint64_t length) {
    auto file = std::make_shared<const Fd>(kernel_, kernel_.memfd_create("test", 0));
    EXPECT_EQ(kernel_.ftruncate(file->get(), length), 0);
    return file;
  }
  Device attach_new() {
    return attach(kernel_, find_pci_function(kernel_, {.device = 1}).value().host, {.backend = "iommufd"}).value();
  }

  sim::Kernel simulated_;
  sim::FailingKernel kernel_{simulated_};
  Device device_ = attach_new();
  Container& container_ = *device_.container();
};

TEST_F(FileMemory, IsMappedByAddressWhereTheKernelIsOlderThan6_14) {
  kernel_.fail_ioctl(IOMMU_IOAS_MAP_FILE, ENOTTY);
  const auto file = make_file(4 * page);
  ASSERT_TRUE(container_.map(base, Memory::of_file(file, page, 2 * page)));
  kernel_.fail_ioctl(0, 0);
  EXPECT_EQ(container_.find(base)->memory.kind(), Memory::Kind::file) << "it is still known what it was";
  EXPECT_TRUE(container_.unmap(base, 2 * page));
}

TEST_F(FileMemory, ThatTheKernelRefusesIsNotMapped) {
  kernel_.fail_ioctl(IOMMU_IOAS_MAP_FILE, ENOMEM);
  const auto file = make_file(page);
  const auto refused = container_.map(base, Memory::of_file(file, 0, page));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().operation(), "IOMMU_IOAS_MAP_FILE");
  EXPECT_EQ(refused.error().code(), ENOMEM);
  EXPECT_EQ(container_.mapping_count(), 0U);
  EXPECT_EQ(file.use_count(), 1) << "nor is it kept";
  kernel_.fail_ioctl(0, 0);
  EXPECT_TRUE(container_.map(base, Memory::of_file(file, 0, page)));
  EXPECT_EQ(file.use_count(), 2);
  EXPECT_TRUE(container_.unmap_all());
  EXPECT_EQ(file.use_count(), 1);
}

TEST_F(FileMemory, IsReplayedIntoAnotherContainerAsAFile) {
  const auto file = make_file(4 * page);
  ASSERT_TRUE(container_.map(base, Memory::of_file(file, page, 2 * page), Access::read));
  kernel_.fail_ioctl(IOMMU_IOAS_MAP, EIO);  // only files can be mapped
  const auto other = Container::open(kernel_, *find_backend("iommufd").value()).value();
  const Device second = attach(kernel_, find_pci_function(kernel_, {.device = 4}).value().host,
                               {.backend = "iommufd", .container = other})
                            .value();
  container_.for_each_mapping(
      [&](const Mapping& mapping) { EXPECT_TRUE(other->map(mapping.range.first, mapping.memory, mapping.access)); });
  EXPECT_EQ(other->find(base)->memory.offset(), page);
  EXPECT_EQ(other->find(base)->access, Access::read);
}

TEST_F(FileMemory, OfAnOrdinaryFileIsForMmap) {
  const auto disk = std::make_shared<const Fd>(kernel_, ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  const auto refused = container_.map(base, Memory::of_file(disk, 0, page), Access::read);
  if (refused) GTEST_SKIP() << "this program lies on tmpfs";
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("map the file with mmap(2), and give that address"));
}

TEST_F(FileMemory, OfADmaBufThatIsNoneIsRefused) {
  const auto file = make_file(page);
  EXPECT_TRUE(container_.map(base, Memory::of_dma_buf(file, 0, page))) << "the kernel does not tell them apart";
  EXPECT_EQ(container_.find(base)->memory.kind(), Memory::Kind::dma_buf);
  EXPECT_EQ(container_.map(base + page, Memory::of_dma_buf(file, page, page)).error().code(), EINVAL) << "too short";
}

TEST_F(FileMemory, OfABufferIsAMemfd) {
  IovaAllocator iovas(container_.usable_ranges(), container_.page_sizes());
  auto buffer = DmaBuffer::allocate(device_.container(), iovas, 3 * page, {.is_file = true});
  ASSERT_TRUE(buffer) << buffer.error().message();
  EXPECT_EQ(buffer->memory().kind(), Memory::Kind::file);
  EXPECT_EQ(buffer->memory().length(), 3 * page);
  buffer->data()[page] = std::byte{42};
  char byte = 0;
  EXPECT_EQ(::pread(buffer->memory().file()->get(), &byte, 1, page), 1);
  EXPECT_EQ(byte, 42);
  EXPECT_EQ(DmaBuffer::allocate(device_.container(), iovas, page)->memory().kind(), Memory::Kind::address);
}

TEST_F(FileMemory, OfHugePagesIsRefusedWhereThereAreNone) {
  IovaAllocator iovas(container_.usable_ranges(), container_.page_sizes());
  const std::uint64_t before = iovas.bytes_free();
  for (const bool is_file : {false, true}) {
    EXPECT_EQ(DmaBuffer::allocate(device_.container(), iovas, page, {.huge_page = 3 * page, .is_file = is_file})
                  .error()
                  .code(),
              EINVAL);
    const auto no_such_size =
        DmaBuffer::allocate(device_.container(), iovas, page, {.huge_page = 2 * page, .is_file = is_file});
    ASSERT_FALSE(no_such_size);
    EXPECT_THAT(no_such_size.error().message(), HasSubstr("huge pages of 8 KiB"));
  }
  EXPECT_EQ(iovas.bytes_free(), before);
}

TEST_F(FileMemory, OfHugePagesIsABuffer) {
  constexpr std::uint64_t huge = std::uint64_t{2} << 20;
  IovaAllocator iovas(container_.usable_ranges(), container_.page_sizes());
  for (const bool is_file : {false, true}) {
    const auto buffer = DmaBuffer::allocate(device_.container(), iovas, page, {.huge_page = huge, .is_file = is_file});
    if (!buffer && buffer.error().code() == ENOMEM) {
      EXPECT_THAT(buffer.error().message(), HasSubstr("too few free huge pages of 2 MiB"));
      GTEST_SKIP() << "this machine has no free huge pages";
    }
    ASSERT_TRUE(buffer) << buffer.error().message();
    EXPECT_EQ(buffer->size(), huge);
  }
}

TEST_F(FileMemory, IsMappedAnywhere) {
  const auto file = make_file(4 * page);
  const Iova first = container_.map_anywhere(Memory::of_file(file, 0, 4 * page)).value();
  const Iova second = container_.map_anywhere(Memory::of_file(file, 0, page), Access::read).value();
  EXPECT_NE(first.value, 0U);
  EXPECT_EQ(container_.find(first)->memory.length(), 4 * page);
  EXPECT_EQ(container_.find(second)->access, Access::read);
  const auto buffer = DmaBuffer::allocate(device_.container(), page, {.within = {{page}, {(1U << 28) - 1}}});
  ASSERT_TRUE(buffer) << buffer.error().message();
  EXPECT_LT(buffer->iova().value, 1U << 28);
  EXPECT_TRUE(container_.find(buffer->iova()));
  const auto nowhere = container_.map_anywhere(Memory::of_file(file, 0, page), Access::read, {{0}, {page - 1}});
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code(), ENOSPC);
  EXPECT_EQ(container_.map_anywhere(Memory::of_file(file, 0, 0)).error().code(), EINVAL);
  EXPECT_EQ(container_.map_anywhere(Memory::of_file(file, 0, 512)).error().code(), EINVAL);
  EXPECT_EQ(Container::open(kernel_, *find_backend("iommufd").value())
                .value()
                ->map_anywhere(Memory::of_file(file, 0, page))
                .error()
                .code(),
            ENODEV);
}

// The kernel says nothing about which mapping it cannot pin.
TEST_F(FileMemory, ThatWasCutShortWhileNoDeviceWasThereIsNamedToTheNext) {
  const auto file = make_file(4 * page);
  ASSERT_TRUE(container_.map(Iova{0x10000000}, Memory::of_file(make_file(page), 0, page)));
  ASSERT_TRUE(container_.map(Iova{0x20000000}, Memory::of_file(file, 0, 4 * page)));
  const auto container = device_.container();
  const HostDevice host = container->devices().front();
  ASSERT_TRUE(device_.detach());
  ASSERT_EQ(::ftruncate(file->get(), page), 0);
  const auto attached = attach(kernel_, host, {.container = container});
  ASSERT_FALSE(attached);
  EXPECT_FALSE(attached.error().refused());
  EXPECT_THAT(attached.error().message(), AllOf(HasSubstr("0x20000000"), HasSubstr("no longer there")));
  EXPECT_TRUE(container->unmap(Iova{0x20000000}, 4 * page)) << "the remedy";
  const auto again = attach(kernel_, host, {.container = container});
  EXPECT_TRUE(again) << again.error().message();
}

TEST_F(FileMemory, ACapabilityThatIsMissingIsNamed) {
  EXPECT_EQ(container_.get<DmaWindows>(), nullptr);
  const auto missing = container_.require<DmaWindows>();
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), EOPNOTSUPP);
  EXPECT_EQ(missing.error().message(), "container iommufd: refused: EOPNOTSUPP: it has no DMA windows");
}

}  // namespace file_memory_test
}  // namespace postern
