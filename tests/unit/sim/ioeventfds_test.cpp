// SPDX-License-Identifier: Apache-2.0
// VFIO_DEVICE_IOEVENTFD of the simulated kernel, which accepts all that Linux 7.3 accepts, including what it should
// not.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <postern-sim/kernel.hpp>
#include <postern/deadline.hpp>
#include <postern/event.hpp>

#include "support/raw_device.hpp"

namespace postern::sim {
namespace ioeventfds_test {

using namespace std::chrono_literals;

constexpr std::uint64_t shared = 0;  // a BAR of the device with small BARs that stores writes
constexpr std::uint64_t config = std::uint64_t{7} << 40;

// Opens the device with small BARs, or an NVMe disk, through its group.
class IoeventfdsOfKernel : public testing::Test {
 protected:
  int set(std::uint32_t width, std::uint64_t offset, std::uint64_t data, int fd) {
    return set(device_, width, offset, data, fd);
  }
  static int set(const test::RawDevice& device, std::uint32_t width, std::uint64_t offset, std::uint64_t data, int fd) {
    vfio_device_ioeventfd wanted{.argsz = offsetof(vfio_device_ioeventfd, reserved),
                                 .flags = width,
                                 .offset = offset,
                                 .data = data,
                                 .fd = fd,
                                 .reserved = 0};
    return device.ioctl(VFIO_DEVICE_IOEVENTFD, &wanted);
  }
  [[nodiscard]] bool becomes(std::uint64_t offset, std::uint32_t value) {
    return poll_until(Deadline(10s), 1ms, [&] { return device_.read(offset) == value; });
  }

  // Without taking the signal.
  [[nodiscard]] bool is_signalled() const {
    pollfd look{.fd = fd_, .events = POLLIN, .revents = 0};
    return ::poll(&look, 1, 0) == 1;
  }

  Kernel kernel_;
  test::RawDevice device_{kernel_, "/dev/vfio/6", "0000:00:05.0"};
  Event event_ = Event::create(kernel_).value();
  const int fd_ = event_.fd();
};

TEST_F(IoeventfdsOfKernel, WriteOnEachSignalAndTakeIt) {
  ASSERT_EQ(set(4, shared, 0x11223344, fd_), 0);
  ASSERT_EQ(set(2, shared + 8, 0x5566, fd_), 0) << "the same event";
  ASSERT_TRUE(event_.signal());
  EXPECT_TRUE(becomes(shared, 0x11223344));
  EXPECT_TRUE(becomes(shared + 8, 0x5566));
  EXPECT_EQ(event_.take().value(), 0U);
  ASSERT_EQ(set(4, shared, 0x11223344, -1), 0);
  device_.write<std::uint64_t>(shared, 0);
  device_.write<std::uint64_t>(shared + 8, 0);
  ASSERT_TRUE(event_.signal());
  EXPECT_TRUE(becomes(shared + 8, 0x5566));
  EXPECT_EQ(device_.read(shared), 0U) << "which was removed";
}

TEST_F(IoeventfdsOfKernel, TakeWhatIsUnalignedOrWiderThanItsRegister) {
  ASSERT_EQ(set(4, shared + 1, 1, fd_), 0);
  ASSERT_EQ(set(1, shared + 8, 0x1ff, fd_), 0);
  ASSERT_TRUE(event_.signal());
  EXPECT_TRUE(becomes(shared + 8, 0xff));
  EXPECT_TRUE(becomes(shared, 0x100));
}

TEST_F(IoeventfdsOfKernel, AreToldApartByAllThatIsWritten) {
  ASSERT_EQ(set(4, shared, 1, fd_), 0);
  const Event other = Event::create(kernel_).value();
  EXPECT_EQ(set(4, shared, 1, other.fd()), -EEXIST);
  EXPECT_EQ(set(4, shared, 2, fd_), 0);
  EXPECT_EQ(set(2, shared, 1, fd_), 0);
  EXPECT_EQ(set(4, shared, 3, -1), -ENODEV);
  EXPECT_EQ(set(4, shared, 1, -1), 0);
  EXPECT_EQ(set(4, shared, 1, -1), -ENODEV);
}

TEST_F(IoeventfdsOfKernel, AreRefusedAsLinuxDoes) {
  EXPECT_EQ(set(0, shared, 1, fd_), -EINVAL) << "no size";
  EXPECT_EQ(set(6, shared, 1, fd_), -EINVAL) << "two sizes";
  EXPECT_EQ(set(16, shared, 1, fd_), -EINVAL);
  EXPECT_EQ(set(4, shared, 1, -2), -EINVAL);
  EXPECT_EQ(set(4, shared, 1, 9999), -EBADF);
  const int no_eventfd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_EQ(set(4, shared, 1, no_eventfd), -EINVAL);
  ::close(no_eventfd);
  EXPECT_EQ(set(4, config + 4, 1, fd_), -EINVAL);
  EXPECT_EQ(set(4, (std::uint64_t{1} << 40) - 4, 1, fd_), -EINVAL) << "beyond the BAR";
  EXPECT_EQ(set(4, std::uint64_t{5} << 40, 1, fd_), -EINVAL) << "no such BAR";
}

TEST_F(IoeventfdsOfKernel, AreRefusedAcrossTheTableOfMsix) {
  const test::RawDevice disk(kernel_, "/dev/vfio/1", "0000:00:01.0");
  EXPECT_EQ(set(disk, 4, 0x2000, 0, fd_), -EINVAL);
  EXPECT_EQ(set(disk, 8, 0x1ffc, 0, fd_), -EINVAL);
  EXPECT_EQ(set(disk, 4, 0x1ffc, 0, fd_), 0);
  EXPECT_EQ(set(disk, 4, 0x1000, 0, fd_), 0) << "a doorbell";
}

TEST_F(IoeventfdsOfKernel, AreAThousandAtMost) {
  for (std::uint64_t i = 0; i < 1000; ++i) ASSERT_EQ(set(8, shared, i, fd_), 0) << i;
  EXPECT_EQ(set(8, shared, 1000, fd_), -ENOSPC);
  EXPECT_EQ(set(8, shared, 7, -1), 0);
  EXPECT_EQ(set(8, shared, 1000, fd_), 0);
}

TEST_F(IoeventfdsOfKernel, WriteNothingWhileMemoryIsOff) {
  constexpr std::uint64_t command = config + 4;
  ASSERT_EQ(set(4, shared, 0x11223344, fd_), 0);
  device_.write<std::uint32_t>(shared, 5);
  device_.write<std::uint16_t>(command, 0);
  ASSERT_TRUE(event_.signal());
  EXPECT_TRUE(poll_until(Deadline(10s), 1ms, [&] { return !is_signalled(); })) << "it is taken all the same";
  device_.write<std::uint16_t>(command, 2);
  EXPECT_EQ(device_.read(shared), 5U);
}

}  // namespace ioeventfds_test
}  // namespace postern::sim
