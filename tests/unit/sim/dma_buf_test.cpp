// SPDX-License-Identifier: Apache-2.0
// Dma-bufs and low power of the simulated kernel, by what Linux 7.3.4 answers to the same calls.
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <postern-sim/kernel.hpp>
#include <postern/fd.hpp>

#include "sim/process/dma_buf.hpp"
#include "unit/sim/iommufd_rig.hpp"

namespace postern::sim {
namespace dma_buf_test {

using namespace iommufd_test;

// A dma-buf of memory that stands for a BAR.
class MappedDmaBuf : public SimulatedIommufd {
 protected:
  std::shared_ptr<DmaBuf> make(std::uint64_t length, std::size_t ranges = 1) {
    auto made = std::make_shared<DmaBuf>(va(0), length, ranges, false);
    fd_ = process_.files.give(made);
    return made;
  }
  int map_file(std::uint64_t start, std::uint64_t length, std::uint64_t iova) {
    iommu_ioas_map_file command{0, fixed, ioas_, fd_, start, length, iova};
    return call(IOMMU_IOAS_MAP_FILE, command);
  }
  bool reaches(Device& device, std::uint64_t iova) {
    std::array<std::byte, 4> bytes{};
    return device.domain->read({iova}, bytes);
  }

  std::uint32_t ioas_ = ioas();
  int fd_ = -1;
};

TEST_F(MappedDmaBuf, IsReachedByDevicesAndCountsNothing) {
  Device& device = bound();
  ASSERT_EQ(attach(device, ioas_), 0);
  make(4 * page);
  ASSERT_EQ(map_file(page, 2 * page, 0x10000), 0);
  EXPECT_EQ(pinned(), 0);
  EXPECT_EQ(map_file(page, page, 0x10000), -EEXIST);
  EXPECT_EQ(map_file(page, page, 0x20000), 0) << "a second iova";
  *at(2) = std::byte{7};
  std::array<std::byte, 1> byte{};
  EXPECT_TRUE(device.domain->read({0x11000}, byte));
  EXPECT_EQ(byte[0], std::byte{7});
  EXPECT_EQ(process_.close(fd_), 0);
  EXPECT_TRUE(reaches(device, 0x10000)) << "the mapping needs no descriptor";
  EXPECT_EQ(unmap(ioas_, 0x10000, 2 * page), 0);
  EXPECT_FALSE(reaches(device, 0x10000));
}

TEST_F(MappedDmaBuf, RefusesWhatIsNotWithinItAndSeveralRanges) {
  Device& device = bound();
  ASSERT_EQ(attach(device, ioas_), 0);
  make(2 * page);
  EXPECT_EQ(map_file(0, 3 * page, 0x10000), -EINVAL);
  EXPECT_EQ(map_file(2 * page, page, 0x10000), -EINVAL);
  EXPECT_EQ(map_file(0x200, page, 0x10000), -EINVAL);
  EXPECT_EQ(map_file(0, 0x200, 0x10000), -EINVAL);
  make(2 * page, 2);
  EXPECT_EQ(map_file(0, page, 0x10000), -EOPNOTSUPP);
}

TEST_F(MappedDmaBuf, IsDeadForGoodOnceItIsRevoked) {
  Device& device = bound();
  ASSERT_EQ(attach(device, ioas_), 0);
  const auto dma_buf = make(2 * page);
  ASSERT_EQ(map_file(0, 2 * page, 0x10000), 0);
  dma_buf->move(true);
  EXPECT_FALSE(reaches(device, 0x10000));
  EXPECT_EQ(map_file(0, page, 0x20000), -ENODEV);
  dma_buf->move(false);
  EXPECT_FALSE(reaches(device, 0x10000));
  EXPECT_EQ(map_file(0, page, 0x10000), -EEXIST);
  ASSERT_EQ(copy(ioas_, 0x30000, ioas_, 0x10000, 2 * page), 0);
  EXPECT_FALSE(reaches(device, 0x30000)) << "a copy of it is dead, too";
  EXPECT_EQ(unmap(ioas_, 0x10000, 2 * page), 0);
  EXPECT_EQ(length_, 2 * page);
  ASSERT_EQ(map_file(0, 2 * page, 0x10000), 0);
  EXPECT_TRUE(reaches(device, 0x10000));
  ASSERT_EQ(copy(ioas_, 0x40000, ioas_, 0x10000, page), 0);
  EXPECT_TRUE(reaches(device, 0x40000));
  dma_buf->move(true);
  EXPECT_FALSE(reaches(device, 0x40000));
}

TEST_F(MappedDmaBuf, IsRefusedBeforeThereIsADevice) {
  const auto dma_buf = make(page);
  dma_buf->move(true);
  EXPECT_EQ(map_file(0, page, 0x10000), -ENODEV) << "unlike the pages of a file";
  dma_buf->move(false);
  ASSERT_EQ(map_file(0, page, 0x10000), 0);
  dma_buf->move(true);
  Device& device = bound();
  EXPECT_EQ(attach(device, ioas_), 0);
  EXPECT_FALSE(reaches(device, 0x10000));
}

// VFIO_DEVICE_FEATURE of a function.
class DeviceFeature : public ::testing::Test {
 protected:
  ~DeviceFeature() override {
    for (const int fd : fds_) kernel_.close(fd);
  }
  // By its cdev, the number of its device.
  int open(unsigned number) {
    const int iommufd = keep(kernel_.open("/dev/iommu", O_RDWR));
    const int fd = keep(kernel_.open(("/dev/vfio/devices/vfio" + std::to_string(number)).c_str(), O_RDWR));
    vfio_device_bind_iommufd bind{.argsz = sizeof bind, .iommufd = iommufd};
    EXPECT_EQ(kernel_.ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind), 0);
    return fd;
  }
  int keep(int fd) {
    EXPECT_GE(fd, 0);
    fds_.push_back(fd);
    return fd;
  }
  // The feature, and the words behind the header.
  int feature(std::uint32_t flags, std::initializer_list<std::uint64_t> words = {}) {
    std::array<std::uint64_t, 16> request{};
    auto& head = *reinterpret_cast<vfio_device_feature*>(request.data());
    head.argsz = static_cast<std::uint32_t>(sizeof head + words.size() * sizeof(std::uint64_t));
    head.flags = flags;
    std::copy(words.begin(), words.end(), request.begin() + 1);
    return kernel_.ioctl(device_, VFIO_DEVICE_FEATURE, request.data());
  }
  int export_range(std::uint64_t bar, std::uint64_t offset, std::uint64_t length) {
    return feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF, {bar, one_range, offset, length});
  }

  static constexpr std::uint64_t one_range = std::uint64_t{1} << 32;  // behind the flags
  Kernel kernel_;
  std::vector<int> fds_;
  int device_ = open(0);
};

TEST_F(DeviceFeature, ExportsWholePagesOfABar) {
  EXPECT_EQ(feature(VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_DMA_BUF), 0);
  EXPECT_EQ(feature(VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_BUF, {0, one_range, 0, page}), -EINVAL);
  const int fd = keep(export_range(0, page, 2 * page));
  EXPECT_EQ(kernel_.lseek(fd, 0, SEEK_END), 2 * page);
  EXPECT_EQ(kernel_.lseek(device_, 0, SEEK_END), -ESPIPE);
  EXPECT_EQ(kernel_.lseek(1 << 21, 0, SEEK_END), -EBADF);
  EXPECT_EQ(kernel_.mmap(nullptr, page, PROT_READ, MAP_SHARED, fd, 0), -EINVAL);
  std::string name;
  EXPECT_EQ(kernel_.read_link("/proc/self/fd/" + std::to_string(fd), name), 0);
  EXPECT_EQ(name, "/dmabuf:");
  keep(feature(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF, {0, 2 * one_range, 0, page, page, page}));
  EXPECT_EQ(export_range(0, 0x200, page), -EINVAL);
  EXPECT_EQ(export_range(0, 0, 0x200), -EINVAL);
  EXPECT_EQ(export_range(0, 0, 0), -EINVAL);
  EXPECT_EQ(export_range(0, 0, 1 << 20), -EINVAL);
  EXPECT_EQ(export_range(0, 1 << 20, page), -EINVAL);
  EXPECT_EQ(export_range(0, most - page + 1, page), -EOVERFLOW);
  for (const std::uint64_t absent : {2, 6, 7, 100}) EXPECT_EQ(export_range(absent, 0, page), -ENODEV) << absent;
  constexpr std::uint32_t get = VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_BUF;
  EXPECT_EQ(feature(get, {0, 0, 0, page}), -EINVAL) << "no range";
  EXPECT_EQ(feature(get, {0, one_range | 1, 0, page}), -EINVAL) << "a flag";
  EXPECT_EQ(feature(get, {0}), -EINVAL) << "too short";
}

TEST_F(DeviceFeature, ExportsNoPortsNorLessThanAPage) {
  device_ = open(2);  // small BARs
  for (const std::uint64_t bar : {0, 1, 2}) EXPECT_EQ(export_range(bar, 0, page), -EINVAL) << bar;
  EXPECT_EQ(export_range(3, 0, page), -ENODEV);
}

TEST_F(DeviceFeature, EntersAndLeavesLowPower) {
  constexpr std::uint32_t set = VFIO_DEVICE_FEATURE_SET;
  constexpr std::uint32_t entry = VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
  constexpr std::uint32_t entry_with_wakeup = VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;
  constexpr std::uint32_t exit = VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
  const Fd event(kernel_, kernel_.eventfd());
  const Fd no_event(system_kernel(), ::open("/dev/null", O_RDWR | O_CLOEXEC));
  const auto number = [](const Fd& fd) { return static_cast<std::uint64_t>(fd.get()); };
  for (const std::uint32_t each : {entry, entry_with_wakeup, exit}) {
    EXPECT_EQ(feature(VFIO_DEVICE_FEATURE_PROBE | each), 0);
    EXPECT_EQ(feature(VFIO_DEVICE_FEATURE_GET | each, {0}), -EINVAL);
  }
  EXPECT_EQ(feature(set | exit), 0) << "without entry";
  EXPECT_EQ(feature(set | entry_with_wakeup, {0xffffffff}), -EINVAL);
  EXPECT_EQ(feature(set | entry_with_wakeup, {number(no_event)}), -EINVAL);
  EXPECT_EQ(feature(set | entry_with_wakeup, {12345}), -EBADF);
  EXPECT_EQ(feature(set | entry_with_wakeup), -EINVAL) << "too short";
  const auto is_signalled = [&] {
    std::uint64_t count = 0;
    return ::read(event.get(), &count, sizeof count) == sizeof count;
  };
  std::uint32_t value = 0;
  EXPECT_EQ(feature(set | entry_with_wakeup, {number(event)}), 0);
  EXPECT_FALSE(is_signalled());
  EXPECT_EQ(kernel_.pread(device_, &value, sizeof value, 8), 4) << "BAR 0";
  EXPECT_TRUE(is_signalled()) << "the read has woken it, and low power is over";
  EXPECT_EQ(feature(set | entry_with_wakeup, {number(event)}), 0);
  EXPECT_EQ(feature(set | entry), 0) << "a call wakes it before anything else";
  EXPECT_TRUE(is_signalled());
  EXPECT_EQ(feature(set | entry), -EINVAL);
  EXPECT_EQ(feature(set | entry_with_wakeup, {number(event)}), -EINVAL);
  EXPECT_EQ(kernel_.pread(device_, &value, sizeof value, 8), 4) << "without an event it stays in low power";
  EXPECT_EQ(feature(set | exit), 0);
  EXPECT_FALSE(is_signalled());
  EXPECT_EQ(feature(set | entry), 0);
  EXPECT_EQ(kernel_.ioctl(device_, VFIO_DEVICE_RESET, nullptr), 0);
}

}  // namespace dma_buf_test
}  // namespace postern::sim
