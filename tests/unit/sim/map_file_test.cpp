// SPDX-License-Identifier: Apache-2.0
// IOMMU_IOAS_MAP_FILE of the simulated /dev/iommu, with the same results as Linux 7.3.4.
#include <sys/eventfd.h>
#include <unistd.h>

#include <postern/fd.hpp>
#include <postern/kernel.hpp>

#include "unit/sim/iommufd_rig.hpp"

namespace postern::sim {
namespace map_file_test {

using namespace iommufd_test;

class MapFile : public SimulatedIommufd {
 protected:
  static constexpr std::uint64_t file_length = 8 * page;

  MapFile() { EXPECT_EQ(::ftruncate(file_.get(), file_length), 0); }
  int map_file(int fd, std::uint64_t start, std::uint64_t length, std::uint64_t iova, std::uint32_t flags = fixed) {
    iommu_ioas_map_file command{0, flags, ioas_, fd, start, length, iova};
    const int result = call(IOMMU_IOAS_MAP_FILE, command);
    iova_ = command.iova;
    return result;
  }
  [[nodiscard]] int file() const { return file_.get(); }

  std::uint32_t ioas_ = ioas();

 private:
  Fd file_{system_kernel(), ::memfd_create("guest memory", MFD_CLOEXEC)};
};

TEST_F(MapFile, RefusesWrongCallsAsLinuxDoes) {
  EXPECT_EQ(map_file(file(), 0, page, 0x1000, 8), -EOPNOTSUPP);
  EXPECT_EQ(map_file(file(), 0, most, 0x1000), -EOVERFLOW);
  EXPECT_EQ(map_file(file(), 0, page, most), -EOVERFLOW);
  EXPECT_EQ(map_file(file(), 0, page, 0x1000, IOMMU_IOAS_MAP_FIXED_IOVA), -EINVAL);
  EXPECT_EQ(map_file(file(), 0, 0, 0x1000), -EINVAL);
  EXPECT_EQ(map_file(file(), most - 100, page, 0x1000), -EOVERFLOW);
  EXPECT_EQ(map_file(-1, 0, page, 0x1000), -EBADF);
  EXPECT_EQ(map_file(file(), 0, most - 100, 0x1000), -EINVAL);
  ioas_ += 7;
  EXPECT_EQ(map_file(file(), 0, page, 0x1000), -ENOENT);
}

TEST_F(MapFile, LetsDevicesAtTheFile) {
  Device& device = bound();
  ASSERT_EQ(attach(device, ioas_), 0);
  ASSERT_EQ(map_file(file(), 3 * page, 2 * page, 0x10000), 0);
  EXPECT_EQ(pinned(), 2);
  const std::array<char, 8> text{"passed"};
  EXPECT_TRUE(device.domain->write({0x11000}, std::as_bytes(std::span(text))));
  std::array<char, 8> found{};
  EXPECT_EQ(::pread(file(), found.data(), found.size(), 4 * page), 8);
  EXPECT_EQ(found, text);
  EXPECT_EQ(unmap(ioas_, 0x10000, 2 * page), 0);
  EXPECT_EQ(pinned(), 0);
}

TEST_F(MapFile, IsSharedByCopies) {
  Device& device = bound();
  ASSERT_EQ(attach(device, ioas_), 0);
  ASSERT_EQ(map_file(file(), 0, 4 * page, 0x10000), 0);
  ASSERT_EQ(copy(ioas_, 0x20000, ioas_, 0x11000, 2 * page), 0);
  EXPECT_EQ(pinned(), 4);
  ASSERT_EQ(unmap(ioas_, 0x10000, 4 * page), 0);
  EXPECT_EQ(pinned(), 2);
  const std::array<char, 8> text{"copied"};
  EXPECT_TRUE(device.domain->write({0x21000}, std::as_bytes(std::span(text)))) << "the copy keeps the file mapped";
}

// Without a page table, the kernel does not ask the file for its pages.
TEST_F(MapFile, AsksForTheFilesPagesWhenADeviceNeedsThem) {
  const Fd counter(system_kernel(), ::eventfd(0, EFD_CLOEXEC));
  Device& device = bound();
  ASSERT_EQ(map_file(counter.get(), 0, page, 0x1000), 0);
  EXPECT_EQ(attach(device, ioas_), -EINVAL) << "an eventfd has no pages";
  ASSERT_EQ(unmap(ioas_, 0x1000, page), 0);
  ASSERT_EQ(map_file(file(), 7 * page, 2 * page, 0x1000), 0);
  EXPECT_EQ(attach(device, ioas_), -EINVAL) << "behind the file's end";
  ASSERT_EQ(::ftruncate(file(), file_length + page), 0);
  EXPECT_EQ(attach(device, ioas_), 0) << "it has become longer";
  EXPECT_EQ(pinned(), 2);
  EXPECT_EQ(map_file(counter.get(), 0, page, 0x10000), -EINVAL);
  EXPECT_EQ(map_file(file(), 8 * page, 2 * page, 0x10000), -EINVAL);
}

TEST_F(MapFile, IsMappedWhereItIsAligned) {
  ASSERT_EQ(attach(bound(), ioas_), 0);
  ASSERT_EQ(::ftruncate(file(), 0x600000), 0);
  ASSERT_EQ(map_file(file(), 0x200000, 0x200000, 0, any), 0);
  EXPECT_EQ(iova_ % 0x200000, 0);
  ASSERT_EQ(map_file(file(), 0x1000, 0x1000, 0, any), 0);
  EXPECT_EQ(map_file(file(), 0x10, 0x1000, 0x7000000), -EINVAL) << "no page of this IOMMU's";
}

TEST_F(MapFile, OfHugePagesIsMapped) {
  const Fd huge(system_kernel(), ::memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  if (!huge || ::ftruncate(huge.get(), 0x400000) < 0) GTEST_SKIP() << "no huge pages can be had here";
  void* const try_it = ::mmap(nullptr, 0x400000, PROT_READ | PROT_WRITE, MAP_SHARED, huge.get(), 0);
  if (try_it == MAP_FAILED) GTEST_SKIP() << "no huge pages are reserved here";
  ::munmap(try_it, 0x400000);
  Device& device = bound();
  ASSERT_EQ(attach(device, ioas_), 0);
  ASSERT_EQ(map_file(huge.get(), 0x1ff000, 2 * page, 0x10000), 0);
  const std::array<char, 8> text{"huge"};
  EXPECT_TRUE(device.domain->write({0x11000}, std::as_bytes(std::span(text))));
}

}  // namespace map_file_test
}  // namespace postern::sim
