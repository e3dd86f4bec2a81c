// SPDX-License-Identifier: Apache-2.0
// Ioeventfd on the kernel under test, for each backend: signalling an event writes a register of edu.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <postern/deadline.hpp>
#include <postern/ioeventfd.hpp>
#include <thread>

#include "support/edu_fixture.hpp"

namespace postern {
namespace ioeventfd_test {

using namespace std::chrono_literals;

// Reads as the complement of the value written.
constexpr std::uint64_t liveness = 4;
// The same in both byte orders: QEMU's edu is big-endian on POWER.
constexpr std::uint32_t first = 0x5a5a5a5a;
constexpr std::uint32_t second = 0x33333333;

class IoeventfdOnKernel : public test::EduFixture {
 protected:
  static Event event() { return Event::create(test::kernel()).value(); }
  static RegisterWrite write_of(std::uint32_t value) {
    return {.region = 0, .offset = liveness, .width = 4, .value = value};
  }
  [[nodiscard]] bool becomes(std::uint32_t value) const {
    return poll_until(Deadline(10s), 1ms, [&] { return edu_->read(liveness) == ~value; });
  }
  [[nodiscard]] Result<Ioeventfd> add(const RegisterWrite& write, EventRef event) const {
    return Ioeventfd::add(pci_->device(), write, event);
  }
};

TEST_P(IoeventfdOnKernel, WritesTheRegisterWhenItsEventIsSignalledUntilItGoes) {
  const Event event = this->event();
  const Event other = this->event();
  {
    const auto added = add(write_of(first), event);
    ASSERT_TRUE(added) << added.error().message();
    const auto beside = add(write_of(second), other);
    ASSERT_TRUE(beside) << beside.error().message();
    ASSERT_TRUE(event.signal());
    EXPECT_TRUE(becomes(first));
    ASSERT_TRUE(other.signal());
    EXPECT_TRUE(becomes(second));
    ASSERT_TRUE(event.signal());
    EXPECT_TRUE(becomes(first));
    EXPECT_EQ(event.take().value(), 0U) << "the kernel took it";
  }
  edu_->write(liveness, 0);
  ASSERT_TRUE(event.signal());
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(event.take().value(), 1U) << "the kernel takes it no more";
  EXPECT_EQ(edu_->read(liveness), ~0U);
}

TEST_P(IoeventfdOnKernel, RefusesWhatTheKernelTakesAndShouldNot) {
  const Event event = this->event();
  EXPECT_EQ(add({.offset = liveness + 1, .width = 4, .value = 1}, event).error().code(), EINVAL);
  EXPECT_EQ(add({.offset = liveness, .width = 4, .value = std::uint64_t{1} << 32}, event).error().code(), EINVAL);
  EXPECT_EQ(add({.offset = liveness, .width = 1, .value = 256}, event).error().code(), EINVAL);
  EXPECT_EQ(add({.offset = 0, .width = 3, .value = 1}, event).error().code(), EINVAL);
  EXPECT_EQ(add({.offset = 0, .width = 0, .value = 0}, event).error().code(), EINVAL);
  EXPECT_TRUE(add(write_of(1), {}).error().refused()) << "no event";
  const std::uint64_t end = pci_->device().regions()[0].length;
  EXPECT_EQ(add({.offset = end, .width = 4, .value = 1}, event).error().code(), ERANGE);
  EXPECT_EQ(add({.offset = ~std::uint64_t{3}, .width = 4, .value = 1}, event).error().code(), EOVERFLOW);
  EXPECT_EQ(add({.region = 1, .offset = 0, .width = 4, .value = 1}, event).error().code(), ENODEV);
}

TEST_P(IoeventfdOnKernel, SaysWhatTheKernelRefuses) {
  const Event event = this->event();
  const auto added = add(write_of(first), event);
  ASSERT_TRUE(added);
  const auto again = add(write_of(first), event);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), EEXIST);
  EXPECT_TRUE(add(write_of(second), event)) << "another value";
  EXPECT_EQ(add({.region = 7, .offset = 4, .width = 2, .value = 1}, event).error().code(), EINVAL) << "config space";
  const int no_eventfd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_EQ(add(write_of(2), EventRef::of_fd(no_eventfd)).error().code(), EINVAL);
  ::close(no_eventfd);
}

TEST_P(IoeventfdOnKernel, IsRemovedOnceAndIsHarmlessAfterItsDeviceWasDetached) {
  const Event event = this->event();
  auto added = add(write_of(first), event).value();
  ASSERT_TRUE(added.remove());
  EXPECT_EQ(added.remove().error().code(), EBADF);
  added = add(write_of(first), event).value();
  const auto kept = std::move(added);
  EXPECT_EQ(added.remove().error().code(), EBADF) << "moved from";  // NOLINT(bugprone-use-after-move)
  ASSERT_TRUE(pci_->device().detach());
  EXPECT_EQ(add(write_of(first), event).error().code(), EBADF);
}

INSTANTIATE_TEST_SUITE_P(Backends, IoeventfdOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace ioeventfd_test
}  // namespace postern
