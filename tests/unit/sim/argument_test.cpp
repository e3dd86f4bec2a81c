// SPDX-License-Identifier: Apache-2.0
// Invalid argument pointers in VFIO's calls: the simulated kernel returns EFAULT, as the real one does.
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <postern-sim/kernel.hpp>

namespace postern {
namespace argument_test {

constexpr std::size_t page = 4096;

class Argument : public ::testing::Test {
 protected:
  Argument() {
    EXPECT_NE(memory_, MAP_FAILED);
    EXPECT_EQ(::munmap(bytes() + page, page), 0);
  }
  ~Argument() override { (void)::munmap(memory_, page); }
  [[nodiscard]] std::byte* bytes() const { return static_cast<std::byte*>(memory_); }

  sim::Kernel kernel_;
  int group_ = kernel_.open("/dev/vfio/1", 0);

 private:
  // The second page is unmapped. Far below the addresses that mmap(2) chooses, so that nothing is mapped there later.
  void* memory_ = ::mmap(reinterpret_cast<void*>(0x7e9000000000), 2 * page, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
};

TEST_F(Argument, ThatIsNotThereIsRefused) {
  for (void* const nowhere :
       {static_cast<void*>(nullptr), static_cast<void*>(bytes() + page), static_cast<void*>(bytes() + page - 4)}) {
    EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, nowhere), -EFAULT);
  }
}

TEST_F(Argument, ThatEndsWithThePageIsTaken) {
  std::byte* const last = bytes() + page - sizeof(vfio_group_status);
  const vfio_group_status status{.argsz = 64, .flags = 0};
  std::memcpy(last, &status, sizeof status);
  EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, last), 0);
  EXPECT_NE(reinterpret_cast<vfio_group_status*>(last)->flags, 0U);
}

TEST_F(Argument, ThatCannotBeWrittenHasNoRoomForTheAnswer) {
  reinterpret_cast<vfio_group_status*>(bytes())->argsz = sizeof(vfio_group_status);
  ASSERT_EQ(::mprotect(bytes(), page, PROT_READ), 0);
  EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, bytes()), -EFAULT);
}

TEST_F(Argument, ThatWasThereBeforeIsLookedForAgain) {
  auto* const status = reinterpret_cast<vfio_group_status*>(bytes());
  status->argsz = sizeof *status;
  EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, status), 0);
  status->flags = 0;
  ASSERT_EQ(::mprotect(bytes(), page, PROT_READ), 0);
  EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, status), -EFAULT);
  ASSERT_EQ(::munmap(bytes(), page), 0);
  EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_GET_STATUS, status), -EFAULT);
}

// The argument of SET_CONTAINER is an fd, not a struct with its size: the address sanitizer detects reads past it.
TEST_F(Argument, ThatDoesNotBeginWithItsSizeIsReadNoFurther) {
  std::byte* const number = bytes() + page - 16;
  const int container = kernel_.open("/dev/vfio/vfio", 0);
  std::memcpy(number, &container, sizeof container);
  ASAN_POISON_MEMORY_REGION(number + 8, 8);
  EXPECT_EQ(kernel_.ioctl(group_, VFIO_GROUP_SET_CONTAINER, number), 0);
  ASAN_UNPOISON_MEMORY_REGION(number + 8, 8);
}

}  // namespace argument_test
}  // namespace postern
