// SPDX-License-Identifier: Apache-2.0
// A client's interrupts: SET_IRQS as QEMU sends it, and as nobody should, where vectors can be added and where not.
#include "vfio_user/server/client_interrupts.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <numeric>
#include <string>

#include "unit/vfio_user/lent.hpp"

namespace postern::vfio_user {
namespace client_interrupts_test {

using rig::Begun;
using rig::fds_of;
using rig::make_event;
using rig::make_events;
using rig::off;
using rig::set_irqs;
using rig::signal_eventfds;
using rig::trigger;

constexpr std::uint32_t intx = VFIO_PCI_INTX_IRQ_INDEX;
constexpr std::uint32_t msi = VFIO_PCI_MSI_IRQ_INDEX;
constexpr std::uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
constexpr std::uint32_t error_notice = VFIO_PCI_ERR_IRQ_INDEX;
constexpr std::uint32_t vectors = 65;  // of the NVMe
constexpr std::uint32_t as_booleans = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER;

// How often each was signalled since the last look.
std::vector<std::uint64_t> signals_of(std::span<const Event> events) {
  std::vector<std::uint64_t> signals;
  for (const Event& event : events) signals.push_back(event.take().value());
  return signals;
}
std::uint64_t signals_of(const Event& event) { return event.take().value(); }

// MSI-X where vectors can be added ("dynamic"), and where all must be turned off and on again for another ("fixed").
class VectorsOfAClient : public ::testing::TestWithParam<const char*> {
 protected:
  static sim::Host host() {
    sim::Host host = sim::pc();
    host.dynamic_msix = is_dynamic();
    return host;
  }
  static bool is_dynamic() { return GetParam() == std::string("dynamic"); }
  int set(std::uint32_t start, std::span<const Event> events) {
    return lent_.error_of(
        set_irqs(msix, signal_eventfds, start, static_cast<std::uint32_t>(events.size()), fds_of(events)));
  }
  int signal(std::uint32_t start, std::uint32_t count = 1) {
    return lent_.error_of(set_irqs(msix, trigger, start, count));
  }
  int turn_off() { return lent_.error_of(set_irqs(msix, off, 0, 0)); }
  [[nodiscard]] bool is_on() {
    const auto control = lent_.read<std::uint8_t>(pci_config, 0x43);  // the capability is at 0x40
    return (control & (PCI_MSIX_FLAGS_ENABLE >> 8)) != 0;
  }

  sim::Kernel simulated_{host()};
  sim::FailingKernel kernel_{simulated_};
  Begun lent_{kernel_, "iommufd", rig::nvme_slot};
  std::vector<Event> events_ = make_events(vectors);
};

TEST_P(VectorsOfAClient, CanBeAddedOrNot) {
  const Reply reply = lent_.call(rig::irq_info(msix));
  EXPECT_EQ((rig::at<IrqInfoBody>(reply.body()).flags & VFIO_IRQ_INFO_NORESIZE) == 0, is_dynamic());
}

TEST_P(VectorsOfAClient, AreTurnedOnOneByOne) {
  EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 0, 1)), 0) << "MSI-X, with no vector";
  EXPECT_TRUE(is_on());
  EXPECT_EQ(signal(0), 0) << "of a vector that is off";
  for (std::uint32_t vector = 0; vector < 21; ++vector)
    ASSERT_EQ(set(vector, std::span(events_).subspan(vector, 1)), 0) << vector;
  for (std::uint32_t vector = 0; vector < 21; ++vector) {
    EXPECT_EQ(signal(vector), 0);
    for (std::uint32_t other = 0; other < 21; ++other)
      EXPECT_EQ(signals_of(events_[other]), other == vector ? 1U : 0U) << vector << " and " << other;
  }
  EXPECT_EQ(signal(21), 0) << "none of them";
  EXPECT_TRUE(is_on());
}

TEST_P(VectorsOfAClient, AreTurnedOnInAnyOrder) {
  for (const std::uint32_t vector : {64U, 0U, 31U, 1U}) {
    ASSERT_EQ(set(vector, std::span(events_).subspan(vector, 1)), 0);
    EXPECT_EQ(signal(vector), 0);
    EXPECT_EQ(signals_of(events_[vector]), 1U);
  }
  EXPECT_EQ(signal(0, vectors), 0);
  const auto signals = signals_of(events_);
  EXPECT_EQ(std::accumulate(signals.begin(), signals.end(), std::uint64_t{0}), 4U);
}

TEST_P(VectorsOfAClient, AreTurnedOnInChunks) {
  ASSERT_EQ(set(0, std::span(events_).subspan(0, 16)), 0);
  ASSERT_EQ(set(16, std::span(events_).subspan(16, 16)), 0);
  ASSERT_EQ(set(32, std::span(events_).subspan(32, 5)), 0);
  EXPECT_EQ(signal(0, 37), 0);
  auto signals = signals_of(events_);
  for (std::uint32_t vector = 0; vector < vectors; ++vector)
    EXPECT_EQ(signals[vector], vector < 37 ? 1U : 0U) << vector;
  // As QEMU does where vectors cannot be added.
  ASSERT_EQ(turn_off(), 0);
  EXPECT_FALSE(is_on());
  for (std::uint32_t start = 0; start < 64; start += 16)
    ASSERT_EQ(set(start, std::span(events_).subspan(start, 16)), 0);
  EXPECT_EQ(signal(0, 64), 0);
  signals = signals_of(events_);
  for (std::uint32_t vector = 0; vector < vectors; ++vector)
    EXPECT_EQ(signals[vector], vector < 64 ? 1U : 0U) << vector;
}

TEST_P(VectorsOfAClient, AreSignalledByBooleans) {
  ASSERT_EQ(set(0, std::span(events_).first(8)), 0);
  const auto yes = std::byte{1};
  const auto no = std::byte{0};
  EXPECT_EQ(lent_.error_of(set_irqs(msix, as_booleans, 2, 5, {}, {yes, no, std::byte{0xff}, no, yes})), 0);
  EXPECT_EQ(signals_of(std::span(events_).first(8)), (std::vector<std::uint64_t>{0, 0, 1, 0, 1, 0, 1, 0}));
}

TEST_P(VectorsOfAClient, SignalAnotherEventIfTheyAreSetAgain) {
  const std::size_t before = rig::open_files();
  ASSERT_EQ(set(0, std::span(events_).first(2)), 0);
  const std::size_t with_two = rig::open_files();
  ASSERT_EQ(set(1, std::span(events_).subspan(5, 1)), 0);
  EXPECT_EQ(rig::open_files(), with_two) << "the first one is closed";
  EXPECT_EQ(signal(0, 2), 0);
  EXPECT_EQ(signals_of(std::span(events_).first(6)), (std::vector<std::uint64_t>{1, 0, 0, 0, 0, 1}));
  EXPECT_EQ(turn_off(), 0);
  EXPECT_EQ(rig::open_files(), before);
}

TEST_P(VectorsOfAClient, AreTurnedOffOneByOne) {
  ASSERT_EQ(set(0, std::span(events_).first(4)), 0);
  const std::size_t with_four = rig::open_files();
  EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 1, 2)), 0);
  EXPECT_LT(rig::open_files(), with_four);
  EXPECT_EQ(signal(0, 4), 0);
  EXPECT_EQ(signals_of(std::span(events_).first(4)), (std::vector<std::uint64_t>{1, 0, 0, 1}));
  EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 0, vectors)), 0) << "all of them";
  EXPECT_EQ(signal(0, 4), 0);
  EXPECT_EQ(signals_of(std::span(events_).first(4)), std::vector<std::uint64_t>(4));
  EXPECT_TRUE(is_on());
  ASSERT_EQ(set(3, std::span(events_).first(1)), 0);
  EXPECT_EQ(signal(3), 0);
  EXPECT_EQ(signals_of(events_[0]), 1U);
}

TEST_P(VectorsOfAClient, AreTurnedOffAtOnce) {
  const std::size_t before = rig::open_files();
  EXPECT_EQ(turn_off(), 0) << "they are off";
  EXPECT_EQ(signal(0), EINVAL);
  ASSERT_EQ(set(0, std::span(events_).first(16)), 0);
  EXPECT_TRUE(is_on());
  EXPECT_EQ(turn_off(), 0);
  EXPECT_FALSE(is_on());
  EXPECT_EQ(signal(0), EINVAL);
  EXPECT_EQ(signals_of(events_[0]), 0U);
  EXPECT_EQ(turn_off(), 0);
  EXPECT_EQ(rig::open_files(), before);
}

TEST_P(VectorsOfAClient, AreNoMoreThanTheDeviceHas) {
  const std::vector<int> two = fds_of(std::span(events_).first(2));
  const std::size_t before = rig::open_files();
  for (const rig::Call& call : {set_irqs(msix, signal_eventfds, vectors, 1, {two[0]}),
                                set_irqs(msix, signal_eventfds, vectors - 1, 2, two),
                                set_irqs(msix, signal_eventfds, 0, vectors + 1),
                                set_irqs(msix, signal_eventfds, 0, 1U << 31),
                                set_irqs(msix, signal_eventfds, 0, rig::most32),
                                set_irqs(msix, signal_eventfds, 1U << 31, 1, {two[0]}),
                                set_irqs(msix, trigger, vectors, 1),
                                set_irqs(msix, trigger, 0, rig::most32),
                                set_irqs(msix, as_booleans, vectors, 1, {}, rig::Bytes(1)),
                                set_irqs(msix, off, vectors + 1, 0),
                                set_irqs(intx, signal_eventfds, 0, 2, two),
                                set_irqs(intx, signal_eventfds, 1, 1, {two[0]}),
                                set_irqs(msi, signal_eventfds, 0, 1, {two[0]}),
                                set_irqs(error_notice, signal_eventfds, 0, 2, two),
                                set_irqs(error_notice, signal_eventfds, 1, 1),
                                set_irqs(5, signal_eventfds, 0, 1, {two[0]}),
                                set_irqs(5, off, 0, 0),
                                set_irqs(1U << 31, off, 0, 0),
                                set_irqs(rig::most32, signal_eventfds, 0, 1, {two[0]}),
                                set_irqs(rig::most32, rig::mask, 0, 1),
                                set_irqs(msi, rig::unmask, 0, 1)}) {
    const auto body = rig::at<IrqSetBody>(call.body);
    EXPECT_EQ(lent_.error_of(call), EINVAL) << body.index << ": " << body.start << "+" << body.count;
  }
  EXPECT_EQ(rig::open_files(), before);
  EXPECT_FALSE(is_on());
}

TEST_P(VectorsOfAClient, TakeNothingButEventfds) {
  std::vector<Fd> wrong;
  wrong.reserve(16);
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  for (const int end : ends) wrong.emplace_back(system_kernel(), end);
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  for (const int end : ends) wrong.emplace_back(system_kernel(), end);
  wrong.push_back(rig::make_memory(rig::page));
  wrong.emplace_back(system_kernel(), ::open("/dev/null", O_RDWR | O_CLOEXEC));
  wrong.emplace_back(system_kernel(), ::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::size_t before = rig::open_files();
  for (const Fd& fd : wrong) {
    EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 0, 1, {fd.get()})), EINVAL);
    EXPECT_EQ(lent_.error_of(set_irqs(intx, signal_eventfds, 0, 1, {fd.get()})), EINVAL);
    EXPECT_EQ(lent_.error_of(set_irqs(error_notice, signal_eventfds, 0, 1, {fd.get()})), EINVAL);
  }
  EXPECT_EQ(rig::open_files(), before);
  EXPECT_FALSE(is_on());
  ASSERT_EQ(set(0, std::span(events_).first(3)), 0);
  const std::size_t with_three = rig::open_files();
  for (const Fd& fd : wrong) {
    EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 1, 1, {fd.get()})), EINVAL);
    EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 0, 3, {events_[3].fd(), events_[4].fd(), fd.get()})),
              EINVAL);
    EXPECT_EQ(lent_.error_of(set_irqs(msix, signal_eventfds, 2, 2, {events_[3].fd(), fd.get()})), EINVAL);
    EXPECT_EQ(rig::open_files(), with_three);
    EXPECT_EQ(signal(0, 4), 0);
    EXPECT_EQ(signals_of(std::span(events_).first(5)), (std::vector<std::uint64_t>{1, 1, 1, 0, 0}))
        << "nothing has changed";
  }
}

TEST_P(VectorsOfAClient, AreAsBeforeIfTheKernelFails) {
  ASSERT_EQ(set(0, std::span(events_).first(2)), 0);
  // Only calls that turn vectors on with those events fail, not those that put the others back.
  bool fails = true;
  kernel_.refuse = [&fails](unsigned long request, void* argument) {
    if (request != VFIO_DEVICE_SET_IRQS) return 0;
    const auto* const asked = static_cast<const vfio_irq_set*>(argument);
    const bool adds = (asked->flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0 && asked->start + asked->count > 2;
    return adds && fails ? -ENOMEM : 0;
  };
  EXPECT_EQ(set(2, std::span(events_).subspan(2, 2)), ENOMEM);
  EXPECT_EQ(signal(0, 4), 0);
  EXPECT_EQ(signals_of(std::span(events_).first(4)), (std::vector<std::uint64_t>{1, 1, 0, 0}));
  fails = false;
  EXPECT_EQ(set(2, std::span(events_).subspan(2, 2)), 0);
  EXPECT_EQ(signal(0, 4), 0);
  EXPECT_EQ(signals_of(std::span(events_).first(4)), (std::vector<std::uint64_t>{1, 1, 1, 1}));
}

TEST_P(VectorsOfAClient, AreOnWhileINTxIsOff) {
  const Event line = make_event();
  ASSERT_EQ(lent_.error_of(set_irqs(intx, signal_eventfds, 0, 1, {line.fd()})), 0);
  EXPECT_EQ(set(0, std::span(events_).first(1)), EINVAL);
  EXPECT_FALSE(is_on());
  EXPECT_EQ(lent_.error_of(set_irqs(intx, trigger, 0, 1)), 0);
  EXPECT_EQ(signals_of(line), 1U) << "it is still on";
  ASSERT_EQ(lent_.error_of(set_irqs(intx, off, 0, 0)), 0);
  ASSERT_EQ(set(0, std::span(events_).first(1)), 0);
  EXPECT_EQ(lent_.error_of(set_irqs(intx, signal_eventfds, 0, 1, {line.fd()})), EINVAL);
  EXPECT_EQ(signal(0), 0);
  EXPECT_EQ(signals_of(events_[0]), 1U);
}

TEST_P(VectorsOfAClient, AreNotMasked) {
  ASSERT_EQ(set(0, std::span(events_).first(1)), 0);
  EXPECT_EQ(lent_.error_of(set_irqs(msix, rig::mask, 0, 1)), ENOTTY);
  EXPECT_EQ(lent_.error_of(set_irqs(msix, rig::unmask, 0, 1)), ENOTTY);
  EXPECT_EQ(
      lent_.error_of(set_irqs(msix, VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK, 0, 1, {events_[1].fd()})),
      ENOTTY);
}

TEST_P(VectorsOfAClient, AreOffWhenItLeaves) {
  const std::size_t before = rig::open_files();
  ASSERT_EQ(set(0, std::span(events_).first(16)), 0);
  ASSERT_EQ(set(16, std::span(events_).subspan(16, 16)), 0);
  ASSERT_EQ(lent_.error_of(set_irqs(error_notice, signal_eventfds, 0, 1, {events_[40].fd()})), 0);
  ASSERT_EQ(lent_.error_of(set_irqs(VFIO_PCI_REQ_IRQ_INDEX, signal_eventfds, 0, 1, {events_[41].fd()})), 0);
  EXPECT_TRUE(lent_.session().quiesce());
  EXPECT_FALSE(is_on());
  EXPECT_EQ(rig::open_files(), before);
  EXPECT_TRUE(lent_.session().quiesce()) << "twice";
}

INSTANTIATE_TEST_SUITE_P(MSIX, VectorsOfAClient, ::testing::Values("dynamic", "fixed"), rig::backend_name);

class NoticesOfAClient : public ::testing::Test {
 protected:
  sim::Kernel kernel_;
  Begun lent_{kernel_, "iommufd", rig::nvme_slot};
  Event event_ = make_event();
};

TEST_F(NoticesOfAClient, AreTurnedOnAndOff) {
  const std::size_t before = rig::open_files();
  for (const std::uint32_t index : {error_notice, std::uint32_t{VFIO_PCI_REQ_IRQ_INDEX}}) {
    EXPECT_EQ(lent_.error_of(set_irqs(index, signal_eventfds, 0, 1)), 0) << "it is off: QEMU says so at unplug";
    ASSERT_EQ(lent_.error_of(set_irqs(index, signal_eventfds, 0, 1, {event_.fd()})), 0);
    EXPECT_EQ(lent_.error_of(set_irqs(index, trigger, 0, 1)), 0);
    EXPECT_EQ(signals_of(event_), 1U);
    EXPECT_EQ(lent_.error_of(set_irqs(index, signal_eventfds, 0, 1)), 0);
    EXPECT_EQ(lent_.error_of(set_irqs(index, trigger, 0, 1)), 0);
    EXPECT_EQ(signals_of(event_), 0U);
    ASSERT_EQ(lent_.error_of(set_irqs(index, signal_eventfds, 0, 1, {event_.fd()})), 0);
    EXPECT_EQ(lent_.error_of(set_irqs(index, off, 0, 0)), 0);
    EXPECT_EQ(lent_.error_of(set_irqs(index, off, 0, 0)), 0);
    EXPECT_EQ(rig::open_files(), before);
  }
}

// Edu raises its interrupt when it is told to, as a driver in the guest does.
class LineOfAClient : public ::testing::Test {
 protected:
  LineOfAClient() { EXPECT_EQ(lent_.error_of(rig::set_command(PCI_COMMAND_MEMORY)), 0); }
  void raise() { lent_.write(0, 0x60, std::uint32_t{1}); }
  void acknowledge() { lent_.write(0, 0x64, std::uint32_t{1}); }
  int turn_on(std::uint32_t index) { return lent_.error_of(set_irqs(index, signal_eventfds, 0, 1, {event_.fd()})); }
  int change(std::uint32_t flags, std::vector<int> fds = {}, const rig::Bytes& booleans = {}) {
    return lent_.error_of(set_irqs(intx, flags, 0, 1, std::move(fds), booleans));
  }

  sim::Kernel kernel_;
  Begun lent_{kernel_, "iommufd", rig::edu_slot};
  Event event_ = make_event();
};

TEST_F(LineOfAClient, SignalsOnceUntilItIsUnmasked) {
  ASSERT_EQ(turn_on(intx), 0);
  raise();
  EXPECT_EQ(signals_of(event_), 1U);
  acknowledge();
  raise();
  EXPECT_EQ(signals_of(event_), 0U) << "it is masked";
  EXPECT_EQ(change(rig::unmask), 0);
  EXPECT_EQ(signals_of(event_), 1U) << "the line is still up";
  acknowledge();
  EXPECT_EQ(change(VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_UNMASK, {}, {std::byte{0}}), 0);
  raise();
  EXPECT_EQ(signals_of(event_), 0U) << "that was no";
  EXPECT_EQ(change(VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_UNMASK, {}, {std::byte{1}}), 0);
  EXPECT_EQ(signals_of(event_), 1U);
}

TEST_F(LineOfAClient, IsMasked) {
  ASSERT_EQ(turn_on(intx), 0);
  for (const bool is_boolean : {false, true}) {
    EXPECT_EQ(
        is_boolean ? change(VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_MASK, {}, {std::byte{1}}) : change(rig::mask),
        0);
    raise();
    EXPECT_EQ(signals_of(event_), 0U);
    EXPECT_EQ(change(rig::unmask), 0);
    EXPECT_EQ(signals_of(event_), 1U);
    acknowledge();
    EXPECT_EQ(change(rig::unmask), 0);
  }
}

TEST_F(LineOfAClient, IsUnmaskedByAnEvent) {
  const std::size_t before = rig::open_files();
  constexpr std::uint32_t by_event = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK;
  const Event resample = make_event();
  EXPECT_EQ(change(by_event, {resample.fd()}), EINVAL) << "it is off";
  ASSERT_EQ(turn_on(intx), 0);
  EXPECT_EQ(change(by_event, {rig::make_memory(rig::page).get()}), EINVAL);
  ASSERT_EQ(change(by_event, {resample.fd()}), 0);
  raise();
  EXPECT_EQ(event_.wait(std::chrono::minutes(1)).value(), 1U);
  ASSERT_TRUE(resample.signal());
  EXPECT_GE(event_.wait(std::chrono::minutes(1)).value(), 1U) << "the line is still up";
  acknowledge();
  EXPECT_EQ(change(by_event), 0) << "no more";
  EXPECT_EQ(lent_.error_of(set_irqs(intx, off, 0, 0)), 0);
  EXPECT_EQ(rig::open_files(), before + 1) << "the event of this test";
}

TEST_F(LineOfAClient, IsNotMaskedByAnEvent) {
  ASSERT_EQ(turn_on(intx), 0);
  EXPECT_EQ(change(VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_MASK, {event_.fd()}), ENOTTY);
}

TEST_F(LineOfAClient, ThatIsOffIsNeitherMaskedNorSignalled) {
  EXPECT_EQ(change(rig::mask), EINVAL);
  EXPECT_EQ(change(rig::unmask), EINVAL);
  EXPECT_EQ(change(trigger), EINVAL);
  ASSERT_EQ(turn_on(intx), 0);
  EXPECT_EQ(change(trigger), 0);
  EXPECT_EQ(signals_of(event_), 1U);
  EXPECT_EQ(change(signal_eventfds), 0) << "on, without an event";
  raise();
  EXPECT_EQ(signals_of(event_), 0U);
  EXPECT_EQ(lent_.error_of(set_irqs(intx, off, 0, 0)), 0);
  EXPECT_EQ(change(rig::unmask), EINVAL);
}

TEST_F(LineOfAClient, IsNotUsedWhileMSIIs) {
  ASSERT_EQ(turn_on(msi), 0);
  raise();
  EXPECT_EQ(signals_of(event_), 1U);
  raise();
  EXPECT_EQ(signals_of(event_), 1U) << "it is not masked";
  EXPECT_EQ(turn_on(intx), EINVAL);
  EXPECT_EQ(lent_.error_of(set_irqs(msi, trigger, 0, 1)), 0);
  EXPECT_EQ(signals_of(event_), 1U);
  EXPECT_EQ(lent_.error_of(set_irqs(msi, off, 0, 0)), 0);
}

// The client shares the open file: what it makes of it must not matter.
TEST_F(LineOfAClient, MayHaveAnEventThatBlocks) {
  ASSERT_EQ(turn_on(intx), 0);
  ASSERT_EQ(::fcntl(event_.fd(), F_SETFL, 0), 0);
  EXPECT_EQ(change(trigger), 0);
  raise();
  acknowledge();
  std::uint64_t count = 0;
  EXPECT_EQ(::read(event_.fd(), &count, sizeof count), static_cast<ssize_t>(sizeof count));
  EXPECT_EQ(count, 2U);
  EXPECT_EQ(lent_.error_of(set_irqs(intx, off, 0, 0)), 0);
}

}  // namespace client_interrupts_test
}  // namespace postern::vfio_user
