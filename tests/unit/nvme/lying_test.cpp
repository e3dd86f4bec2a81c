// SPDX-License-Identifier: Apache-2.0
// The NVMe driver with misbehaving controllers: they must not access freed memory, and false reports must be detected.
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <postern/event.hpp>
#include <span>
#include <thread>

#include "support/lying_disk.hpp"

namespace postern {
namespace lying_test {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using nvme::Completion;

template <typename T>
std::string why(const Result<T>& result) {
  return result ? std::string() : result.error().message();
}

class LyingController : public testing::Test {
 protected:
  // Opens a controller that neither completes a read nor can be disabled, so that the driver gives up the read.
  std::optional<nvme::Controller> give_up_a_read(Iova data) {
    auto controller = disk.open({.timeout = 200ms});
    EXPECT_TRUE(controller) << why(controller);
    if (!controller) return std::nullopt;
    disk.lies.holds_admin = true;
    disk.lies.holds_io = true;
    disk.lies.ignores_disable = true;
    const nvme::Namespace ns = controller->namespaces().at(0);
    EXPECT_EQ(controller->read(ns, 0, 8, data).error().code(), ETIMEDOUT);
    EXPECT_FALSE(disk.is_bus_master());
    return std::move(*controller);
  }

  test::LyingDisk disk;
};

TEST_F(LyingController, ThatFinishesAReadThatWasGivenUpReachesNoMemory) {
  std::atomic<int> disabled = 0;
  disk.lies.on_disable = [&] {
    if (++disabled == 2) disk.lies.holds_io = false;  // at the second open
  };
  disk.attach();
  std::optional<DmaBuffer> data = disk.buffer();
  const Iova iova = data->iova();
  const auto old = give_up_a_read(iova);
  data.reset();
  const DmaBuffer other = disk.buffer();
  ASSERT_EQ(other.iova(), iova);
  std::fill_n(other.data(), other.size(), std::byte{0x42});

  const auto again = disk.open();
  EXPECT_GE(disabled, 2);
  EXPECT_TRUE(again) << why(again);  // a reset has cancelled the read
  std::this_thread::sleep_for(50ms);
  EXPECT_EQ(std::count(other.data(), other.data() + other.size(), std::byte{0x42}),
            static_cast<std::ptrdiff_t>(other.size()));
}

TEST_F(LyingController, ThatCannotBeDisabledNorResetIsRefusedAndKeptFromMemory) {
  disk.attach();
  const DmaBuffer data = disk.buffer();
  const auto old = give_up_a_read(data.iova());
  disk.kernel.fail_ioctl(VFIO_DEVICE_RESET, EIO);
  const auto again = disk.open();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ETIMEDOUT) << why(again);
  ASSERT_EQ(again.error().causes().size(), 1U);
  EXPECT_EQ(again.error().causes().front().code(), EIO);
  EXPECT_FALSE(disk.is_bus_master());
}

TEST_F(LyingController, ThatIsReadyAndFatalAtOnceHasNotStarted) {
  disk.lies.is_fatal = true;
  disk.attach();
  const auto controller = disk.open();
  ASSERT_FALSE(controller);
  EXPECT_EQ(controller.error().code(), EIO) << why(controller);
  EXPECT_FALSE(disk.is_bus_master());
}

TEST_F(LyingController, ThatReadsAsAllOnesIsNotLetAtMemory) {
  disk.lies.is_gone = true;
  disk.attach();
  const auto controller = disk.open();
  ASSERT_FALSE(controller);
  EXPECT_EQ(controller.error().code(), ENODEV) << why(controller);
  EXPECT_NE(controller.error().reason().find("all ones"), std::string::npos) << why(controller);
  EXPECT_FALSE(disk.is_bus_master());
}

TEST_F(LyingController, ThatGoesWhileItIsDisabledIsNotWaitedFor) {
  std::atomic<int> disabled = 0;
  disk.lies.on_disable = [&] {
    if (++disabled == 2) disk.lies.is_gone = true;  // at the second open
  };
  disk.attach();
  const DmaBuffer data = disk.buffer();
  const auto old = give_up_a_read(data.iova());
  const auto again = disk.open();
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code(), ENODEV) << why(again);
  EXPECT_FALSE(disk.is_bus_master());
}

TEST_F(LyingController, ThatStaysFatalWhenItIsDisabledIsRefused) {
  disk.lies.stays_fatal = true;
  disk.attach();
  const auto controller = disk.open();
  ASSERT_FALSE(controller);
  EXPECT_EQ(controller.error().code(), EIO) << why(controller);
  EXPECT_EQ(controller.error().operation(), "NVMe disable (CC.EN)") << "it was let at memory";
  EXPECT_FALSE(disk.is_bus_master());
}

TEST_F(LyingController, ThatTurnsFatalOrGoesIsNotWaitedForToTheEnd) {
  for (const bool is_gone : {false, true}) {
    test::LyingDisk one;
    one.attach();
    auto controller = one.open({.timeout = std::chrono::milliseconds::max()});
    ASSERT_TRUE(controller) << why(controller);
    const DmaBuffer data = one.buffer();
    one.lies.holds_io = true;
    (is_gone ? one.lies.is_gone : one.lies.is_fatal) = true;
    const auto read = controller->read(controller->namespaces().at(0), 0, 1, data.iova());
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), is_gone ? ENODEV : EIO) << why(read);
    EXPECT_EQ(controller->wait().error().code(), ESHUTDOWN);
  }
}

TEST_F(LyingController, WithoutInterruptsIsTold) {
  disk.lies.no_interrupts = true;
  disk.attach();
  auto controller = disk.open({.completion = Completion::msix});
  ASSERT_TRUE(controller) << why(controller);
  const nvme::Namespace ns = controller->namespaces().at(0);
  const DmaBuffer data = disk.buffer();
  for (int round = 0; round < 2; ++round) {
    std::fill_n(data.data(), 512, std::byte{0});
    const auto read = controller->read(ns, 0, 1, data.iova());
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code(), ENOMSG) << why(read);
    EXPECT_NE(std::count(data.data(), data.data() + 512, std::byte{0}), 512) << "the command was done";
  }
  const auto submitted = controller->submit_read(ns, 0, 1, data.iova());
  ASSERT_TRUE(submitted) << why(submitted);
  std::this_thread::sleep_for(50ms);
  const auto done = controller->poll();  // polling works without an interrupt
  ASSERT_TRUE(done);
  EXPECT_EQ(done->command, *submitted);
  EXPECT_EQ(controller->interrupts(), 0U);

  // wait() fails, but leaves the command to poll().
  disk.lies.holds_io = true;
  ASSERT_TRUE(controller->submit_read(ns, 0, 1, data.iova()));
  std::thread later([this] {
    std::this_thread::sleep_for(100ms);
    disk.lies.holds_io = false;
  });
  EXPECT_EQ(controller->wait().error().code(), ENOMSG);
  later.join();
  EXPECT_TRUE(controller->poll());
}

TEST_F(LyingController, WithInterruptsHasThemCounted) {
  disk.attach();
  auto controller = disk.open({.completion = Completion::msix, .timeout = std::chrono::milliseconds::max()});
  ASSERT_TRUE(controller) << why(controller);
  const DmaBuffer data = disk.buffer();
  for (std::uint64_t reads = 1; reads <= 20; ++reads) {
    const auto read = controller->read(controller->namespaces().at(0), 0, 1, data.iova());
    ASSERT_TRUE(read) << why(read);
    EXPECT_GE(controller->interrupts(), reads);
  }
}

TEST_F(LyingController, HasOneOwner) {
  disk.attach();
  const DmaBuffer data = disk.buffer();
  std::optional<nvme::Controller> first = test::LyingDisk::must(disk.open({.completion = Completion::msix}));
  const auto second = disk.open();
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EBUSY) << why(second);
  const auto read = first->read(first->namespaces().at(0), 0, 1, data.iova());
  EXPECT_TRUE(read) << why(read);
  nvme::Controller moved = std::move(*first);
  first.reset();
  EXPECT_TRUE(moved.read(moved.namespaces().at(0), 0, 1, data.iova()));
  EXPECT_FALSE(disk.open());
}

TEST_F(LyingController, ThatWasStoppedLeavesTheNextOneAlone) {
  disk.attach();
  const DmaBuffer data = disk.buffer();
  auto first = disk.open({.completion = Completion::msix, .timeout = 200ms});
  ASSERT_TRUE(first) << why(first);
  const nvme::Namespace ns = first->namespaces().at(0);
  ASSERT_TRUE(first->submit_read(ns, 0, 1, data.iova()));
  std::this_thread::sleep_for(20ms);  // for a completion that is not reaped
  disk.lies.holds_io = true;
  ASSERT_TRUE(first->submit_read(ns, 0, 1, data.iova()));
  EXPECT_TRUE(first->wait());
  EXPECT_EQ(first->wait().error().code(), ETIMEDOUT);
  disk.lies.holds_io = false;
  const Event other = test::LyingDisk::must(Event::create(disk.kernel));
  const auto enabled = disk.pci->enable(PciInterrupt::intx, std::span(&other, 1));
  EXPECT_TRUE(enabled) << "its MSI-X is on: " << why(enabled);
  EXPECT_TRUE(disk.pci->disable(PciInterrupt::intx));

  // Replaces it by another one: it is destroyed after the other has opened the device.
  *first = test::LyingDisk::must(disk.open({.completion = Completion::msix}));
  for (int i = 0; i < 10; ++i) {
    const auto read = first->read(ns, 0, 1, data.iova());
    ASSERT_TRUE(read) << why(read);
  }
  EXPECT_GE(first->interrupts(), 10U);
}

}  // namespace lying_test
}  // namespace postern
