// SPDX-License-Identifier: Apache-2.0
// Files as memory for devices, for each backend: what can be mapped, what devices see of it, and what is refused.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <postern/dma_buffer.hpp>
#include <postern/iova_allocator.hpp>
#include <postern/scoped_mapping.hpp>

#include "support/edu_fixture.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace file_memory_test {

using test::Bound;
using test::EduRegisters;
using test::ResourceUse;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 65536;  // a multiple of every host's and IOMMU's page size
constexpr Iova base{0x4000000};        // usable with every IOMMU and by edu
using File = std::shared_ptr<const Fd>;

File make_file(std::uint64_t length, unsigned flags = MFD_ALLOW_SEALING) {
  auto file = std::make_shared<const Fd>(test::kernel(), test::kernel().memfd_create("test", flags));
  EXPECT_TRUE(*file);
  EXPECT_EQ(test::kernel().ftruncate(file->get(), length), 0);
  return file;
}

// The same file through a descriptor with other rights.
File reopened(const File& file, int flags) {
  const std::string path = "/proc/self/fd/" + std::to_string(file->get());
  return std::make_shared<const Fd>(system_kernel(), ::open(path.c_str(), flags | O_CLOEXEC));
}

std::string text_of(const File& file, std::uint64_t offset, std::size_t length) {
  std::string text(length, '?');
  EXPECT_EQ(::pread(file->get(), text.data(), length, static_cast<off_t>(offset)), static_cast<ssize_t>(length));
  return text;
}

void write_text(const File& file, std::uint64_t offset, std::string_view text) {
  EXPECT_EQ(::pwrite(file->get(), text.data(), text.size(), static_cast<off_t>(offset)),
            static_cast<ssize_t>(text.size()));
}

class FileOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  FileOnKernel() : bound_(test::first_nvme()), before_(ResourceUse::now()) {
    device_.emplace(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value());
  }
  ~FileOnKernel() override {
    EXPECT_TRUE(device_->detach());
    device_.reset();
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }
  Container& container() { return *device_->container(); }
  Error refused(const Memory& memory, Access access = Access::read_write, Iova iova = base) {
    auto mapped = container().map(iova, memory, access);
    EXPECT_FALSE(mapped);
    EXPECT_EQ(container().mapping_count(), 0U);
    return mapped ? Error({}) : mapped.error();
  }

  Bound bound_;
  ResourceUse before_;
  std::optional<Device> device_;
};

TEST_P(FileOnKernel, IsMappedAndFoundAsItWasGiven) {
  {
    const File file = make_file(4 * page);
    ASSERT_TRUE(container().map(base, Memory::of_file(file, page, 2 * page)));
  }  // the container keeps it open
  const auto found = container().find(base + page);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->range, (IovaRange{base, base + (2 * page - 1)}));
  EXPECT_EQ(found->memory.kind(), Memory::Kind::file);
  EXPECT_EQ(found->memory.offset(), page);
  EXPECT_EQ(found->memory.length(), 2 * page);
  EXPECT_TRUE(container().unmap(base, 2 * page));
  EXPECT_FALSE(container().find(base));
}

TEST_P(FileOnKernel, IsUnmappedTogetherWithOthers) {
  const File file = make_file(4 * page);
  ASSERT_TRUE(container().map(base, Memory::of_file(file, 0, page)));
  ASSERT_TRUE(container().map(base + page, Memory::of_file(file, page, page), Access::read));
  ASSERT_TRUE(container().unmap(base, 2 * page));
  ASSERT_TRUE(container().map(base, Memory::of_file(file, 3 * page, page)));
  EXPECT_EQ(container().find(base)->memory.offset(), 3 * page) << "nothing is left of the first";
  EXPECT_TRUE(container().unmap_all());
  EXPECT_EQ(container().mapping_count(), 0U);
}

TEST_P(FileOnKernel, IsMappedByScope) {
  const File file = make_file(page);
  {
    auto mapped = ScopedMapping::map(device_->container(), base, Memory::of_file(file, 0, page));
    ASSERT_TRUE(mapped) << mapped.error().message();
    EXPECT_EQ(mapped->range(), (IovaRange{base, base + (page - 1)}));
    const ScopedMapping moved = std::move(*mapped);
    EXPECT_EQ(container().mapping_count(), 1U);
  }
  EXPECT_EQ(container().mapping_count(), 0U);
  auto again = ScopedMapping::map(device_->container(), base, Memory::of_file(file, 0, page)).value();
  EXPECT_TRUE(again.unmap());
  EXPECT_TRUE(again.unmap()) << "the second time there is nothing to do";
  EXPECT_FALSE(ScopedMapping::map(device_->container(), base, Memory::of_file(file, page, page)));
}

TEST_P(FileOnKernel, OfAnOpenDescriptorForReadingIsForReading) {
  const File file = make_file(page);
  const File read_only = reopened(file, O_RDONLY);
  if (GetParam().backend == "spapr") {  // its kernel code pins all memory for writing
    EXPECT_EQ(refused(Memory::of_file(read_only, 0, page), Access::read).code(), EFAULT);
  } else {
    EXPECT_TRUE(container().map(base, Memory::of_file(read_only, 0, page), Access::read));
    EXPECT_TRUE(container().unmap_all());
  }
  const Error error = refused(Memory::of_file(read_only, 0, page));
  const auto null = std::make_shared<const Fd>(system_kernel(), system_kernel().open("/dev/null", O_RDWR));
  const Error no_memory = refused(Memory::of_file(null, 0, page));
  EXPECT_EQ(no_memory.code(), EINVAL);
  EXPECT_THAT(no_memory.message(), HasSubstr("not a regular file of memory"));
  EXPECT_TRUE(no_memory.remedies().contains(RemedyCode::map_file_of_memory));
  EXPECT_EQ(error.code(), EACCES);
  EXPECT_TRUE(error.refused());
  EXPECT_THAT(error.message(), HasSubstr("the file is open for reading only"));
  EXPECT_EQ(refused(Memory::of_file(reopened(file, O_WRONLY), 0, page), Access::write).code(), EACCES);
}

TEST_P(FileOnKernel, ThatIsSealedIsForReading) {
  const File file = make_file(page);
  ASSERT_EQ(::fcntl(file->get(), F_ADD_SEALS, F_SEAL_WRITE), 0);
  const Error error = refused(Memory::of_file(file, 0, page));
  EXPECT_EQ(error.code(), EPERM);
  EXPECT_THAT(error.message(), HasSubstr("sealed against writing"));
}

TEST_P(FileOnKernel, ThatIsTooShortIsRefused) {
  const File file = make_file(page);
  for (const auto& [offset, length] : {std::pair{page, page}, {0 * page, 2 * page}, {16 * page, page}}) {
    const Error error = refused(Memory::of_file(file, offset, length));
    EXPECT_EQ(error.code(), EINVAL);
    EXPECT_THAT(error.message(), HasSubstr("but the file has 64 KiB"));
  }
  EXPECT_EQ(refused(Memory::of_file(file, ~std::uint64_t{0} - (page - 1), page)).code(), EOVERFLOW);
}

TEST_P(FileOnKernel, ThatIsNoneIsRefused) {
  EXPECT_EQ(refused(Memory::of_file(nullptr, 0, page)).code(), EBADF);
  EXPECT_EQ(refused(Memory::of_file(std::make_shared<const Fd>(), 0, page)).code(), EBADF);
  EXPECT_EQ(refused(Memory::of_file(std::make_shared<const Fd>(test::kernel(), 0x7ffffff0), 0, page)).code(), EBADF);
}

// Kernels allocate pages of the file before they discover that they cannot pin them.
TEST_P(FileOnKernel, HasItsHolesAgainWhenAMapFails) {
  const File file = make_file(4 * page);
  write_text(file, 2 * page, "held");
  FileStatus before;
  ASSERT_EQ(test::kernel().fstat(file->get(), before), 0);
  device_.reset();
  sim::FailingKernel kernel(test::kernel());
  {
    const Device device = attach(kernel, bound_.host(), test::options_for(GetParam())).value();
    kernel.refuse = [&](unsigned long request, void*) {
      if (request != VFIO_IOMMU_MAP_DMA && request != IOMMU_IOAS_MAP_FILE && request != IOMMU_IOAS_MAP) return 0;
      EXPECT_EQ(::fallocate(file->get(), 0, 0, 3 * page), 0);
      return -ENOMEM;
    };
    const auto failed = device.container()->map(base, Memory::of_file(file, page, 2 * page));
    kernel.refuse = nullptr;
    ASSERT_FALSE(failed);
    EXPECT_EQ(failed.error().code(), ENOMEM);
  }
  device_.emplace(attach(test::kernel(), bound_.host(), test::options_for(GetParam())).value());
  FileStatus after;
  ASSERT_EQ(test::kernel().fstat(file->get(), after), 0);
  EXPECT_EQ(after.blocks, before.blocks + page / 512) << "the page before the memory is not the library's";
  EXPECT_EQ(text_of(file, 2 * page, 4), "held");
}

TEST_P(FileOnKernel, MustBeAlignedAndFree) {
  const File file = make_file(4 * page);
  const Error unaligned = refused(Memory::of_file(file, 512, page));
  EXPECT_EQ(unaligned.code(), EINVAL);
  EXPECT_THAT(unaligned.message(), HasSubstr("offset 0x200"));
  EXPECT_EQ(refused(Memory::of_file(file, 0, page + 512)).code(), EINVAL);
  EXPECT_EQ(refused(Memory::of_file(file, 0, 0)).code(), EINVAL);
  ASSERT_TRUE(container().map(base, Memory::of_file(file, 0, 2 * page)));
  const auto taken = container().map(base + page, Memory::of_file(file, 0, 2 * page));
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code(), EEXIST);
  EXPECT_EQ(container().find(base)->memory.length(), 2 * page);
  EXPECT_TRUE(container().unmap_all());
}

TEST_P(FileOnKernel, StaysWhenTheLastDeviceLeavesAndTheNextComes) {
  const File file = make_file(2 * page);
  const auto container = device_->container();
  ASSERT_TRUE(container->map(base, Memory::of_file(file, page, page)));
  ASSERT_TRUE(device_->detach());
  auto again = attach(test::kernel(), bound_.host(), {.container = container});
  ASSERT_TRUE(again) << again.error().message();
  device_.emplace(std::move(*again));
  EXPECT_EQ(container->find(base)->memory.offset(), page);
  EXPECT_TRUE(container->unmap(base, page));
}

// DMA of edu to and from files.
class FileOfEdu : public test::EduFixture {
 protected:
  void SetUp() override {
    test::EduFixture::SetUp();
    if (pci_) {
      ASSERT_TRUE(pci_->enable_bus_master());
    }
  }
  Container& container() { return *pci_->device().container(); }
  // Copies 16 bytes from one iova to another by the device's own memory.
  void copy(Iova from, Iova to) {
    edu_->copy(from.value, EduRegisters::buffer, 16, 0);
    edu_->copy(EduRegisters::buffer, to.value, 16, EduRegisters::to_memory);
  }
};

TEST_P(FileOfEdu, IsReadAndWritten) {
  const File file = make_file(4 * page);
  write_text(file, 2 * page + 64, "a line of a file");
  ASSERT_TRUE(container().map(base, Memory::of_file(file, page, 3 * page)));
  copy(base + page + 64, base + 2 * page);
  EXPECT_EQ(text_of(file, 3 * page, 16), "a line of a file");
  ASSERT_TRUE(container().unmap_all());
  EXPECT_EQ(text_of(file, 3 * page, 16), "a line of a file") << "it is the file that was written";
}

// Unless the library clears such pages first, the kernel maps pages that are not the file's.
TEST_P(FileOfEdu, ThatWasAllocatedAndNeverWrittenReadsAsZerosAndKeepsWhatIsWritten) {
  const File file = make_file(4 * page);
  ASSERT_EQ(::fallocate(file->get(), 0, 0, static_cast<off_t>(4 * page)), 0);
  write_text(file, 2 * page, "data between two");
  ASSERT_EQ(::lseek(file->get(), 5, SEEK_SET), 5);
  ASSERT_TRUE(container().map(base, Memory::of_file(file, 0, 4 * page)));
  EXPECT_EQ(::lseek(file->get(), 0, SEEK_CUR), 5) << "the descriptor is the caller's";
  copy(base + 2 * page, base + page);
  EXPECT_EQ(text_of(file, page, 16), "data between two");
  copy(base + 3 * page, base + 2 * page);
  EXPECT_EQ(text_of(file, 2 * page, 16), std::string(16, '\0'));
  ASSERT_TRUE(container().unmap_all());
}

TEST_P(FileOfEdu, OfADmaBufferCanBeHandedOn) {
  constexpr IovaRange reachable{{page}, {(1U << 28) - 1}};
  IovaAllocator iovas(std::span(&reachable, 1), container().page_sizes());
  const auto buffer = DmaBuffer::allocate(pci_->device().container(), iovas, page, {.is_file = true}).value();
  ASSERT_EQ(buffer.memory().kind(), Memory::Kind::file);
  std::ranges::copy(std::as_bytes(std::span("written by us...", 16)), buffer.data());
  copy(buffer.iova(), buffer.iova() + 512);
  EXPECT_EQ(text_of(buffer.memory().file(), 512, 16), "written by us...") << "another process would see the same";
}

INSTANTIATE_TEST_SUITE_P(EachBackend, FileOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);
INSTANTIATE_TEST_SUITE_P(EachBackend, FileOfEdu, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);

}  // namespace file_memory_test
}  // namespace postern
