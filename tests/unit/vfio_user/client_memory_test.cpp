// SPDX-License-Identifier: Apache-2.0
// A client's memory: what it maps is mapped in the device's container, and what it may not map is not.
#include "vfio_user/server/client_memory.hpp"

#include <gtest/gtest.h>
#include <linux/iommufd.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <postern/deadline.hpp>
#include <string>

#include "unit/vfio_user/lent.hpp"

namespace postern::vfio_user {
namespace client_memory_test {

using rig::Begun;
using rig::make_memory;
using rig::map;
using rig::page;
using rig::unmap;

constexpr std::uint32_t read_only = VFIO_DMA_MAP_FLAG_READ;
constexpr std::uint32_t write_only = VFIO_DMA_MAP_FLAG_WRITE;
constexpr std::uint32_t both = read_only | write_only;

class MemoryOfAClient : public rig::OnEachBackend {
 protected:
  [[nodiscard]] bool is_iommufd() const { return GetParam() == std::string("iommufd"); }
  [[nodiscard]] std::size_t mappings() const { return lent_.container().mapping_count(); }

  const Fd file_ = make_memory(64 * page);
  Begun lent_{kernel_, GetParam(), rig::edu_slot};
};

TEST_P(MemoryOfAClient, IsMappedForTheDevice) {
  const Reply reply = lent_.call(map(0x10000, 2 * page, file_.get(), 3 * page));
  EXPECT_EQ(reply.error(), 0);
  EXPECT_TRUE(reply.body().empty());
  EXPECT_EQ(lent_.error_of(map(0x20000, page, file_.get(), 0, read_only)), 0);
  EXPECT_EQ(lent_.error_of(map(0x30000, page, file_.get(), 0, write_only)), 0);
  const auto found = lent_.container().find(Iova{0x11fff});
  ASSERT_TRUE(found);
  EXPECT_EQ(found->range.first, Iova{0x10000});
  EXPECT_EQ(found->range.length(), 2 * page);
  EXPECT_EQ(found->memory.kind(), Memory::Kind::file);
  EXPECT_EQ(found->memory.offset(), 3 * page);
  EXPECT_EQ(found->access, Access::read_write);
  EXPECT_EQ(lent_.container().find(Iova{0x20000})->access, Access::read);
  EXPECT_EQ(lent_.container().find(Iova{0x30000})->access, Access::write);
  EXPECT_EQ(lent_.session().mapped(), 4 * page);
}

TEST_P(MemoryOfAClient, WithoutAFileIsAHole) {
  EXPECT_EQ(lent_.error_of(map(0xfd000000, 0x1000000)), 0);
  EXPECT_EQ(lent_.error_of(map(0xfffc0000, 0x40000, -1, 0, read_only)), 0);
  EXPECT_EQ(lent_.error_of(map(std::uint64_t{1} << 60, page)), 0) << "also where the IOMMU translates nothing";
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.session().mapped(), 0U);
  EXPECT_EQ(lent_.error_of(unmap(0xfd000000, 0x1000000)), 0);
  EXPECT_EQ(lent_.error_of(unmap(0xfd000000, 0x1000000)), ENOENT);
  EXPECT_EQ(lent_.error_of(map(0xfd000000, page, file_.get())), 0) << "what was a hole";
}

TEST_P(MemoryOfAClient, MayTouchButNotOverlap) {
  const auto with_file = [&](std::uint64_t iova, std::uint64_t size) { return map(iova, size, file_.get()); };
  const auto hole = [](std::uint64_t iova, std::uint64_t size) { return map(iova, size); };
  for (const bool is_hole : {true, false}) {
    ASSERT_EQ(lent_.error_of(is_hole ? hole(0x10000, 4 * page) : with_file(0x10000, 4 * page)), 0);
    const std::size_t before = mappings();
    struct Range {
      std::uint64_t iova;
      std::uint64_t size;
    };
    for (const Range range :
         {Range{0x10000, 4 * page}, Range{0x10000, page}, Range{0x11000, page}, Range{0x13000, page},
          Range{0xf000, 2 * page}, Range{0x13000, 2 * page}, Range{0xf000, 6 * page}, Range{0, 64 * page}}) {
      EXPECT_EQ(lent_.error_of(hole(range.iova, range.size)), EEXIST) << range.iova;
      EXPECT_EQ(lent_.error_of(with_file(range.iova, range.size)), EEXIST) << range.iova;
    }
    EXPECT_EQ(mappings(), before);
    EXPECT_EQ(lent_.error_of(with_file(0xf000, page)), 0);
    EXPECT_EQ(lent_.error_of(hole(0x14000, page)), 0);
    EXPECT_EQ(lent_.error_of(rig::unmap_everything()), 0);
  }
  EXPECT_EQ(lent_.error_of(hole(~std::uint64_t{0} - 0xfff, page)), 0) << "the last page";
  EXPECT_EQ(lent_.error_of(hole(~std::uint64_t{0} - 0x1fff, 2 * page)), EEXIST);
}

TEST_P(MemoryOfAClient, IsMappedByWholePages) {
  for (const int file : {-1, file_.get()}) {
    EXPECT_EQ(lent_.error_of(map(0x10200, page, file)), EINVAL);
    EXPECT_EQ(lent_.error_of(map(0x10000, 512, file)), EINVAL);
    EXPECT_EQ(lent_.error_of(map(0x10000, page + 1, file)), EINVAL);
    EXPECT_EQ(lent_.error_of(map(0x10000, page - 1, file)), EINVAL);
    EXPECT_EQ(lent_.error_of(map(0x10000, page, file, 512)), EINVAL);
    EXPECT_EQ(lent_.error_of(map(0x10000, page, file, 1)), EINVAL);
    EXPECT_EQ(lent_.error_of(map(~std::uint64_t{0}, 1, file)), EINVAL);
  }
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.error_of(map(0x10000, 3 * page, file_.get())), 0) << "4 KiB suffice";
}

TEST_P(MemoryOfAClient, EndsWithItsFile) {
  EXPECT_EQ(lent_.error_of(map(0, 65 * page, file_.get())), EINVAL);
  EXPECT_EQ(lent_.error_of(map(0, page, file_.get(), 64 * page)), EINVAL);
  EXPECT_EQ(lent_.error_of(map(0, 2 * page, file_.get(), 63 * page)), EINVAL);
  EXPECT_NE(lent_.error_of(map(0, page, file_.get(), std::uint64_t{1} << 62)), 0);
  EXPECT_NE(lent_.error_of(map(0, page, file_.get(), ~std::uint64_t{0} - 0xfff)), 0);
  EXPECT_EQ(lent_.error_of(map(0, page, make_memory(0).get())), EINVAL);
  EXPECT_EQ(lent_.error_of(map(0, page, make_memory(100).get())), EINVAL);
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.error_of(map(0, page, file_.get(), 63 * page)), 0);
}

TEST_P(MemoryOfAClient, IsUnmappedAlsoIfItsFileHasBecomeShorter) {
  EXPECT_EQ(lent_.error_of(map(0x10000, 4 * page, file_.get())), 0);
  ASSERT_EQ(::ftruncate(file_.get(), 0), 0);
  EXPECT_EQ(lent_.error_of(map(0x20000, 4 * page, file_.get())), EINVAL);
  EXPECT_EQ(lent_.error_of(unmap(0x10000, 4 * page)), 0);
  EXPECT_EQ(mappings(), 0U);
}

// The kernel looks at none of that: a client could let the device write what it may only read itself.
TEST_P(MemoryOfAClient, IsWrittenOnlyIfTheClientMayWriteIt) {
  const Fd reader = rig::reopened(file_, O_RDONLY);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, reader.get())), EACCES);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, reader.get(), 0, write_only)), EACCES);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, reader.get(), 0, read_only)), 0);
  const Fd writer = rig::reopened(file_, O_WRONLY);
  for (const std::uint32_t flags : {read_only, write_only, both})
    EXPECT_EQ(lent_.error_of(map(0x20000, page, writer.get(), 0, flags)), EACCES);
  EXPECT_EQ(mappings(), 1U);
}

TEST_P(MemoryOfAClient, IsNotWrittenIfItIsSealed) {
  for (const int seal : {F_SEAL_WRITE, F_SEAL_FUTURE_WRITE}) {
    const Fd sealed = make_memory(page, MFD_ALLOW_SEALING);
    ASSERT_EQ(::fcntl(sealed.get(), F_ADD_SEALS, seal), 0);
    EXPECT_EQ(lent_.error_of(map(0x10000, page, sealed.get())), EPERM);
    EXPECT_EQ(lent_.error_of(map(0x10000, page, sealed.get(), 0, write_only)), EPERM);
    EXPECT_EQ(lent_.error_of(map(0x10000, page, sealed.get(), 0, read_only)), 0);
    EXPECT_EQ(lent_.error_of(unmap(0x10000, page)), 0);
  }
  const Fd sealed = make_memory(page, MFD_ALLOW_SEALING);
  ASSERT_EQ(::fcntl(sealed.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, sealed.get())), 0) << "these forbid other things";
}

TEST_P(MemoryOfAClient, IsAFileOfMemory) {
  const auto owned = [](int fd) {
    EXPECT_GE(fd, 0);
    return Fd(system_kernel(), fd);
  };
  std::vector<Fd> wrong;
  wrong.reserve(16);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  for (const int end : ends) wrong.push_back(owned(end));
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  for (const int end : ends) wrong.push_back(owned(end));
  wrong.push_back(owned(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
  wrong.push_back(owned(::open("/dev/null", O_RDWR | O_CLOEXEC)));
  wrong.push_back(owned(::open("/dev/zero", O_RDWR | O_CLOEXEC)));
  wrong.push_back(owned(::epoll_create1(EPOLL_CLOEXEC)));
  wrong.push_back(owned(system_kernel().eventfd()));
  wrong.push_back(owned(::open("/proc/self/status", O_RDONLY | O_CLOEXEC)));
  const std::size_t before = rig::open_files();
  for (std::size_t i = 0; i < wrong.size(); ++i) {
    for (const std::uint32_t flags : {both, read_only}) {
      EXPECT_EQ(lent_.error_of(map(0x10000, page, wrong[i].get(), 0, flags)), EINVAL) << i;
      EXPECT_EQ(rig::open_files(), before) << i;
    }
  }
  const Fd path = rig::reopened(file_, O_PATH);
  const Fd disk(system_kernel(), ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(lent_.error_of(map(0x10000, page, path.get())), EINVAL) << "it is open for nothing";
  EXPECT_EQ(lent_.error_of(map(0x10000, page, path.get(), 0, read_only)), EINVAL);
  const bool is_on_disk = ::fcntl(disk.get(), F_GET_SEALS) < 0;  // and not on tmpfs
  const int error = is_on_disk ? lent_.error_of(map(0x10000, page, disk.get(), 0, read_only)) : EINVAL;
  EXPECT_EQ(error, EINVAL) << "a file on a disk";
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, file_.get())), 0) << "nothing is recorded of what failed";
}

TEST_P(MemoryOfAClient, IsUnmappedAsItWasMapped) {
  ASSERT_EQ(lent_.error_of(map(0x10000, 4 * page, file_.get())), 0);
  ASSERT_EQ(lent_.error_of(map(0x14000, 4 * page)), 0);
  for (const std::uint64_t start : {0x10000, 0x14000}) {
    EXPECT_EQ(lent_.error_of(unmap(start, 2 * page)), ENOENT);
    EXPECT_EQ(lent_.error_of(unmap(start + page, 3 * page)), ENOENT);
    EXPECT_EQ(lent_.error_of(unmap(start + page, page)), ENOENT);
    EXPECT_EQ(lent_.error_of(unmap(start - page, 5 * page)), ENOENT);
    EXPECT_EQ(lent_.error_of(unmap(start, 4 * page + 1)), ENOENT);
  }
  EXPECT_EQ(lent_.error_of(unmap(0x10000, 8 * page)), ENOENT) << "two";
  EXPECT_EQ(lent_.error_of(unmap(0x40000, page)), ENOENT) << "nothing";
  EXPECT_EQ(lent_.error_of(unmap(~std::uint64_t{0}, 1)), ENOENT);
  EXPECT_EQ(mappings(), 1U);
  const Reply reply = lent_.call(unmap(0x10000, 4 * page));
  EXPECT_EQ(reply.error(), 0);
  ASSERT_EQ(reply.body().size(), sizeof(DmaUnmapBody));
  const auto echo = rig::at<DmaUnmapBody>(reply.body());
  EXPECT_EQ(echo.iova, 0x10000U);
  EXPECT_EQ(echo.size, 4 * page);
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.session().mapped(), 0U);
  EXPECT_EQ(lent_.error_of(unmap(0x10000, 4 * page)), ENOENT) << "twice";
  EXPECT_EQ(lent_.error_of(unmap(0x14000, 4 * page)), 0);
}

TEST_P(MemoryOfAClient, IsUnmappedAtOnce) {
  EXPECT_EQ(lent_.error_of(rig::unmap_everything()), 0) << "nothing is mapped";
  for (std::uint64_t i = 0; i < 8; ++i)
    ASSERT_EQ(lent_.error_of(map(i * 2 * page, page, i % 2 == 0 ? file_.get() : -1)), 0);
  EXPECT_EQ(mappings(), 4U);
  EXPECT_EQ(lent_.error_of(rig::unmap_everything()), 0);
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.session().mapped(), 0U);
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(lent_.error_of(unmap(i * 2 * page, page)), ENOENT);
  EXPECT_EQ(lent_.error_of(map(0, 16 * page, file_.get())), 0);
  EXPECT_EQ(lent_.error_of(rig::unmap_everything()), 0);
  ASSERT_EQ(lent_.error_of(map(0, page)), 0);
  EXPECT_EQ(lent_.error_of(rig::unmap_everything()), 0) << "holes alone";
  EXPECT_EQ(lent_.error_of(unmap(0, page)), ENOENT);
}

TEST_P(MemoryOfAClient, OutsideWhatTheIommuTranslatesIsRefused) {
  EXPECT_EQ(lent_.error_of(map(std::uint64_t{1} << 50, page, file_.get())), ERANGE);
  EXPECT_EQ(lent_.error_of(map(0xfee00000, page, file_.get())), ERANGE) << "interrupts";
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.error_of(map(0xfee00000, page)), 0) << "as a hole it is none of the IOMMU's";
}

TEST_P(MemoryOfAClient, HoldsItsFileWhileItIsMapped) {
  const std::size_t before = rig::open_files();
  ASSERT_EQ(lent_.error_of(map(0x10000, page, file_.get())), 0);
  ASSERT_EQ(lent_.error_of(map(0x20000, page, file_.get())), 0);
  EXPECT_GT(rig::open_files(), before);
  EXPECT_EQ(lent_.error_of(unmap(0x10000, page)), 0);
  EXPECT_EQ(lent_.error_of(rig::unmap_everything()), 0);
  EXPECT_EQ(rig::open_files(), before);
}

TEST_P(MemoryOfAClient, ThatTheKernelDoesNotMapIsNotRecorded) {
  const std::size_t before = rig::open_files();
  kernel_.fail_ioctl(is_iommufd() ? IOMMU_IOAS_MAP_FILE : VFIO_IOMMU_MAP_DMA, ENOMEM);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, file_.get())), ENOMEM);
  kernel_.fail_ioctl(0, 0);
  EXPECT_EQ(mappings(), 0U);
  EXPECT_EQ(lent_.session().mapped(), 0U);
  EXPECT_EQ(rig::open_files(), before);
  EXPECT_EQ(lent_.error_of(unmap(0x10000, page)), ENOENT);
  EXPECT_EQ(lent_.error_of(map(0x10000, page, file_.get())), 0);
}

TEST_P(MemoryOfAClient, ThatTheKernelDoesNotUnmapStaysMapped) {
  ASSERT_EQ(lent_.error_of(map(0x10000, page, file_.get())), 0);
  kernel_.fail_ioctl(is_iommufd() ? IOMMU_IOAS_UNMAP : VFIO_IOMMU_UNMAP_DMA, EBUSY);
  EXPECT_EQ(lent_.error_of(unmap(0x10000, page)), EBUSY);
  EXPECT_EQ(lent_.error_of(rig::unmap_everything()), EBUSY);
  kernel_.fail_ioctl(0, 0);
  EXPECT_EQ(mappings(), 1U);
  EXPECT_EQ(lent_.session().mapped(), page);
  EXPECT_EQ(lent_.error_of(map(0x10000, page)), EEXIST);
  EXPECT_EQ(lent_.error_of(unmap(0x10000, page)), 0);
}

// Edu's DMA engine, as a driver in the guest uses it.
class Edu {
 public:
  explicit Edu(rig::Lent& lent) : lent_(lent) {
    EXPECT_EQ(lent.error_of(rig::set_command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER)), 0);
  }
  static constexpr std::uint32_t buffer = 0x40000;
  static constexpr std::uint32_t from_memory = 1;
  static constexpr std::uint32_t to_memory = 3;

  void copy(std::uint32_t from, std::uint32_t to, std::uint32_t count, std::uint32_t direction) {
    lent_.write(0, 0x80, from);
    lent_.write(0, 0x88, to);
    lent_.write(0, 0x90, count);
    lent_.write(0, 0x98, direction);
    EXPECT_TRUE(poll_until(Deadline(std::chrono::minutes(1)), std::chrono::milliseconds(1),
                           [&] { return (lent_.read<std::uint32_t>(0, 0x98) & 1) == 0; }));
  }

 private:
  rig::Lent& lent_;
};

std::string text_at(const Fd& file, std::uint64_t offset, std::size_t length) {
  std::string text(length, '\0');
  EXPECT_EQ(::pread(file.get(), text.data(), length, static_cast<off_t>(offset)), static_cast<ssize_t>(length));
  return text;
}
void put(const Fd& file, std::uint64_t offset, const std::string& text) {
  ASSERT_EQ(::pwrite(file.get(), text.data(), text.size(), static_cast<off_t>(offset)),
            static_cast<ssize_t>(text.size()));
}

TEST_P(MemoryOfAClient, IsReadAndWrittenByTheDevice) {
  put(file_, 5 * page + 16, "from the client");
  ASSERT_EQ(lent_.error_of(map(0x100000, page, file_.get(), 5 * page, read_only)), 0);
  ASSERT_EQ(lent_.error_of(map(0x200000, page, file_.get(), 7 * page)), 0);
  Edu edu(lent_);
  edu.copy(0x100010, Edu::buffer, 15, Edu::from_memory);
  edu.copy(Edu::buffer, 0x200020, 15, Edu::to_memory);
  EXPECT_EQ(text_at(file_, 7 * page + 32, 15), "from the client");
  edu.copy(Edu::buffer, 0x100010, 4, Edu::to_memory);
  put(file_, 5 * page + 16, "FROM");
  edu.copy(Edu::buffer, 0x100010, 4, Edu::to_memory);
  EXPECT_EQ(text_at(file_, 5 * page + 16, 15), "FROM the client") << "which the device may only read";
}

TEST_P(MemoryOfAClient, IsOutOfReachOnceItIsUnmapped) {
  put(file_, 0, "first");
  put(file_, page, "other");
  ASSERT_EQ(lent_.error_of(map(0x100000, page, file_.get())), 0);
  ASSERT_EQ(lent_.error_of(map(0x200000, page)), 0);
  Edu edu(lent_);
  edu.copy(0x100000, Edu::buffer, 5, Edu::from_memory);
  edu.copy(Edu::buffer, 0x200000, 5, Edu::to_memory);
  ASSERT_EQ(lent_.error_of(unmap(0x100000, page)), 0);
  edu.copy(Edu::buffer, 0x100000, 5, Edu::to_memory);
  ASSERT_EQ(lent_.error_of(map(0x100000, page, file_.get(), page)), 0);
  EXPECT_EQ(text_at(file_, page, 5), "other");
  edu.copy(Edu::buffer, 0x100000, 5, Edu::to_memory);
  EXPECT_EQ(text_at(file_, page, 5), "first") << "until it is mapped again";
}

INSTANTIATE_TEST_SUITE_P(Backends, MemoryOfAClient, rig::each_backend, rig::backend_name);

class LimitsOfAClient : public rig::OnEachBackend {
 protected:
  const Fd file_ = make_memory(64 * page);
};

TEST_P(LimitsOfAClient, CountTheBytesOfFiles) {
  Begun lent(kernel_, GetParam(), rig::nvme_slot, {.memory_limit = 3 * page});
  EXPECT_EQ(lent.error_of(map(0, 4 * page, file_.get())), ENOMEM);
  EXPECT_EQ(lent.error_of(map(0, std::uint64_t{1} << 40)), 0) << "a hole needs no memory";
  EXPECT_EQ(lent.error_of(rig::unmap_everything()), 0);
  EXPECT_EQ(lent.error_of(map(0, 2 * page, file_.get())), 0);
  EXPECT_EQ(lent.error_of(map(0x10000, 2 * page, file_.get())), ENOMEM) << "of the same file, too";
  EXPECT_EQ(lent.error_of(map(0x10000, page, file_.get())), 0);
  EXPECT_EQ(lent.error_of(map(0x20000, page, file_.get())), ENOMEM);
  EXPECT_EQ(lent.error_of(unmap(0, 2 * page)), 0);
  EXPECT_EQ(lent.error_of(map(0x20000, 2 * page, file_.get())), 0) << "what is unmapped counts no more";
  EXPECT_EQ(lent.session().mapped(), 3 * page);
  EXPECT_EQ(lent.error_of(rig::unmap_everything()), 0);
  EXPECT_EQ(lent.error_of(map(0, 3 * page, file_.get())), 0);
}

TEST_P(LimitsOfAClient, DoNotCountWhatWasRefused) {
  Begun lent(kernel_, GetParam(), rig::nvme_slot, {.memory_limit = 2 * page, .mapping_limit = 2});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(lent.error_of(map(0, page, file_.get(), 64 * page)), EINVAL) << "beyond the file";
    EXPECT_EQ(lent.error_of(map(std::uint64_t{1} << 50, page, file_.get())), ERANGE);
  }
  EXPECT_EQ(lent.error_of(map(0, 2 * page, file_.get())), 0);
}

TEST_P(LimitsOfAClient, CountMappingsAndHoles) {
  Begun lent(kernel_, GetParam(), rig::nvme_slot, {.mapping_limit = 2});
  EXPECT_EQ(lent.error_of(map(0, page, file_.get())), 0);
  EXPECT_EQ(lent.error_of(map(0x10000, page)), 0);
  EXPECT_EQ(lent.error_of(map(0x20000, page)), ENOSPC);
  EXPECT_EQ(lent.error_of(map(0x20000, page, file_.get())), ENOSPC);
  EXPECT_EQ(lent.error_of(map(0x10000, page)), EEXIST) << "whatever else is wrong";
  EXPECT_EQ(lent.error_of(unmap(0x10000, page)), 0);
  EXPECT_EQ(lent.error_of(map(0x20000, page, file_.get())), 0);
  EXPECT_EQ(lent.container().mapping_count(), 2U);
}

TEST_P(LimitsOfAClient, MayBeNone) {
  Begun lent(kernel_, GetParam(), rig::nvme_slot, {.memory_limit = 0, .mapping_limit = 0});
  EXPECT_EQ(lent.error_of(map(0, page)), ENOSPC);
  EXPECT_EQ(lent.error_of(map(0, page, file_.get())), ENOSPC);
}

// Those of the kernel are below those of the policy.
TEST(LimitsOfTheKernel, AreAnErrnoAsWell) {
  sim::Host host = sim::pc();
  host.mapping_limit = 3;
  sim::Kernel kernel(host);
  Begun lent(kernel, "type1", rig::nvme_slot);
  const Fd file = make_memory(page);
  for (std::uint64_t i = 0; i < 3; ++i) EXPECT_EQ(lent.error_of(map(i * page, page, file.get())), 0);
  EXPECT_EQ(lent.error_of(map(3 * page, page, file.get())), ENOSPC);
  EXPECT_EQ(lent.error_of(map(3 * page, page)), 0);
  lent.take_back();
}

TEST(LimitsOfTheKernel, OfLockedMemoryAreAnErrno) {
  for (const char* backend : {"iommufd", "type1"}) {
    sim::Host host = sim::pc();
    host.locked_memory = 4 * page;
    sim::Kernel kernel(host);
    Begun lent(kernel, backend, rig::nvme_slot);
    const Fd file = make_memory(64 * page);
    EXPECT_EQ(lent.error_of(map(0, 5 * page, file.get())), ENOMEM) << backend;
    EXPECT_EQ(lent.container().mapping_count(), 0U);
    EXPECT_EQ(lent.error_of(map(0, 2 * page, file.get())), 0) << backend;
    lent.take_back();
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, LimitsOfAClient, rig::each_backend, rig::backend_name);

}  // namespace client_memory_test
}  // namespace postern::vfio_user
