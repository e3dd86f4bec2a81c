// SPDX-License-Identifier: Apache-2.0
// InterruptSet on the kernel under test, for each backend: vectors enabled one by one, restored after a failure,
// triggered, and disabled at the end.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/vfio.h>
#include <unistd.h>

#include <array>
#include <memory>
#include <optional>
#include <postern/interrupt_set.hpp>

#include "support/edu_fixture.hpp"
#include "support/host_devices.hpp"

namespace postern {
namespace interrupt_set_test {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

constexpr auto msix = PciInterrupt::msix;

std::vector<Event> make_events(std::size_t count) {
  std::vector<Event> made;
  for (std::size_t i = 0; i < count; ++i) made.push_back(Event::create(test::kernel()).value());
  return made;
}
std::vector<EventRef> refs(std::span<const Event> events) { return {events.begin(), events.end()}; }

// Asks the kernel directly to signal a vector, since the library keeps its own record of enabled vectors.
int raise(const PciDevice& device, PciInterrupt kind, std::uint32_t vector) {
  vfio_irq_set set{};
  set.argsz = sizeof set;
  set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
  set.index = static_cast<std::uint32_t>(kind);
  set.start = vector;
  set.count = 1;
  return test::kernel().ioctl(device.device().fd(), VFIO_DEVICE_SET_IRQS, &set);
}

class InterruptSetOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  PciDevice open() {
    auto device = attach(test::kernel(), bound_.host(), test::options_for(GetParam()));
    return PciDevice::open(std::move(*device)).value();
  }
  // The names of the events that the kernel signals for this vector.
  std::string signalled_by(std::uint32_t vector) {
    EXPECT_EQ(raise(disk_, msix, vector), 0);
    std::string names;
    for (std::size_t i = 0; i < events_.size(); ++i) {
      if (events_[i].take().value() != 0) names += static_cast<char>('a' + i);
    }
    return names;
  }
  [[nodiscard]] bool is_msix_on() const { return raise(disk_, msix, 0) == 0; }

  test::Bound bound_{test::first_nvme()};
  PciDevice disk_ = open();
  const std::vector<Event> events_ = make_events(6);
};

TEST_P(InterruptSetOnKernel, TurnsVectorsOnMovesThemAndTurnsThemOffOneByOne) {
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(2))).value();
  EXPECT_EQ(signalled_by(0), "a");
  EXPECT_EQ(signalled_by(1), "b");
  ASSERT_TRUE(set.set(5, events_[2])) << "beyond those that it was turned on with";
  ASSERT_TRUE(set.set(3, EventRef::of_fd(events_[3].fd())));
  EXPECT_EQ(signalled_by(5), "c");
  EXPECT_EQ(signalled_by(3), "d");
  EXPECT_EQ(signalled_by(0), "a");
  ASSERT_TRUE(set.set(1, &events_[4]));
  EXPECT_EQ(signalled_by(1), "e");
  EXPECT_TRUE(set.has_event(1));
  ASSERT_TRUE(set.clear(1));
  ASSERT_TRUE(set.clear(4)) << "which was never on";
  EXPECT_FALSE(set.has_event(1));
  EXPECT_EQ(signalled_by(1), "");
  EXPECT_EQ(signalled_by(5), "c");
  ASSERT_TRUE(set.set(1, events_[1]));
  EXPECT_EQ(signalled_by(1), "b");
  const std::array block = {EventRef(events_[5]), EventRef(), EventRef(), EventRef(events_[4])};
  ASSERT_TRUE(set.set(0, block));
  EXPECT_EQ(signalled_by(0), "f");
  EXPECT_EQ(signalled_by(1), "");
  EXPECT_EQ(signalled_by(3), "e");
  EXPECT_EQ(signalled_by(5), "c");
}

TEST_P(InterruptSetOnKernel, StartsWithoutAVectorAsAGuestEnablesMsix) {
  auto set = disk_.enable_set(msix).value();
  EXPECT_TRUE(is_msix_on());
  ASSERT_TRUE(set.set(7, events_[0]));
  EXPECT_EQ(signalled_by(7), "a");
}

TEST_P(InterruptSetOnKernel, ABlockThatFailsHalfWayChangesNothing) {
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(4))).value();
  const int no_eventfd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  const std::array block = {EventRef(events_[4]), EventRef(events_[5]), EventRef::of_fd(no_eventfd)};
  const auto failed = set.set(0, block);
  ::close(no_eventfd);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), EINVAL);
  EXPECT_EQ(failed.error().operation(), "VFIO_DEVICE_SET_IRQS");
  EXPECT_THAT(failed.error().message(), HasSubstr("MSI-X, vectors 0 to 2"));
  EXPECT_THAT(failed.error().message(), HasSubstr("the event of vector 2, is no eventfd, but /dev/null"));
  EXPECT_TRUE(failed.error().causes().empty());
  EXPECT_EQ(signalled_by(0), "a");
  EXPECT_EQ(signalled_by(1), "b");
  EXPECT_EQ(signalled_by(2), "c");
  EXPECT_EQ(signalled_by(3), "d");
}

TEST_P(InterruptSetOnKernel, AVectorThatCannotMoveKeepsItsEvent) {
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(2))).value();
  const int closed = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::close(closed);
  const auto failed = set.set(1, EventRef::of_fd(closed));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), EBADF);
  EXPECT_THAT(failed.error().message(), HasSubstr("is not open"));
  EXPECT_EQ(signalled_by(1), "b");
  EXPECT_TRUE(set.has_event(1));
}

TEST_P(InterruptSetOnKernel, SaysWhichVectorsItCouldNotPutBack) {
  auto gone = std::make_unique<Event>(Event::create(test::kernel()).value());
  auto refs_of = refs(std::span(events_).first(2));
  refs_of.emplace_back(*gone);
  auto set = disk_.enable_set(msix, refs_of).value();
  // Gives its number to a file that is no eventfd, since the kernel would accept any eventfd.
  const int number = gone->fd();
  gone.reset();
  const int no_eventfd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::dup2(no_eventfd, number), number);
  const std::array block = {EventRef(events_[4]), EventRef(events_[5]), EventRef(events_[3]),
                            EventRef::of_fd(no_eventfd)};
  const auto failed = set.set(0, block);
  ::close(number);
  if (no_eventfd != number) ::close(no_eventfd);
  ASSERT_FALSE(failed);
  ASSERT_EQ(failed.error().causes().size(), 1U);
  EXPECT_THAT(failed.error().message(), HasSubstr("MSI-X, vector 2, put back"));
  EXPECT_FALSE(set.has_event(2));
  EXPECT_EQ(signalled_by(0), "a");
  EXPECT_EQ(signalled_by(1), "b");
  EXPECT_EQ(signalled_by(2), "");
}

TEST_P(InterruptSetOnKernel, TriggersVectors) {
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(3))).value();
  ASSERT_TRUE(set.trigger(1));
  EXPECT_EQ(events_[0].take().value(), 0U);
  EXPECT_EQ(events_[1].take().value(), 1U);
  constexpr std::array<bool, 4> some = {true, false, true, true};
  ASSERT_TRUE(set.trigger(some));
  EXPECT_EQ(events_[0].take().value(), 1U);
  EXPECT_EQ(events_[1].take().value(), 0U);
  EXPECT_EQ(events_[2].take().value(), 1U);
  EXPECT_TRUE(set.trigger(4)) << "of what is off";
  EXPECT_TRUE(set.trigger(std::span<const bool>()));
  EXPECT_EQ(set.trigger(set.count()).error().code(), ERANGE);
}

TEST_P(InterruptSetOnKernel, TurnsAllOffWhenItGoes) {
  {
    const auto set = disk_.enable_set(msix, refs(events_)).value();
    EXPECT_TRUE(is_msix_on());
  }
  EXPECT_FALSE(is_msix_on());
  auto set = disk_.enable_set(msix, refs(events_)).value();
  auto moved = std::move(set);
  EXPECT_TRUE(is_msix_on());
  ASSERT_TRUE(moved.disable());
  EXPECT_FALSE(is_msix_on());
  EXPECT_TRUE(moved.disable());
  EXPECT_EQ(moved.set(0, events_[0]).error().code(), EBADF);
  const auto intx = disk_.enable_set(PciInterrupt::intx, refs(std::span(events_).first(1)));
  EXPECT_TRUE(intx) << "which excludes MSI-X";
}

TEST_P(InterruptSetOnKernel, IsHarmlessAfterItsDeviceWasDetached) {
  auto device = std::make_unique<PciDevice>(std::move(disk_));
  auto set = device->enable_set(msix, refs(events_)).value();
  auto moved = std::make_unique<PciDevice>(std::move(*device));
  device.reset();
  EXPECT_TRUE(set.clear(0)) << "the device was only moved";
  ASSERT_TRUE(moved->device().detach());
  EXPECT_EQ(set.set(0, events_[0]).error().code(), EBADF);
  EXPECT_EQ(set.clear(1).error().code(), EBADF);
  EXPECT_EQ(set.trigger(1).error().code(), EBADF);
  EXPECT_FALSE(set.has_event(1));
  EXPECT_TRUE(set.disable());
  moved.reset();
  disk_ = open();
  EXPECT_TRUE(disk_.enable_set(msix, refs(events_)));
}

TEST_P(InterruptSetOnKernel, HasItsKindToItself) {
  ASSERT_TRUE(disk_.enable(msix, events_));
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(1))).value();
  EXPECT_EQ(signalled_by(1), "") << "what was on before it is off";
  const auto second = disk_.enable_set(msix, refs(std::span(events_).last(1)));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EBUSY);
  EXPECT_EQ(second.error().kind(), ErrorKind::in_use);
  EXPECT_EQ(disk_.enable(msix, events_).error().code(), EBUSY);
  EXPECT_EQ(disk_.disable(msix).error().code(), EBUSY);
  EXPECT_EQ(disk_.disable(msix, 0, 1).error().code(), EBUSY);
  EXPECT_EQ(signalled_by(0), "a");
  ASSERT_TRUE(set.disable());
  EXPECT_TRUE(disk_.enable(msix, events_));
  EXPECT_TRUE(disk_.disable(msix));
}

TEST_P(InterruptSetOnKernel, RefusesWhatIsNoEventOrNoVector) {
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(1))).value();
  auto source = make_events(1);
  const Event taken = std::move(source[0]);
  const auto moved_from = set.set(0, EventRef(source[0]));  // NOLINT(bugprone-use-after-move): that is the point
  ASSERT_FALSE(moved_from);
  EXPECT_EQ(moved_from.error().code(), EBADF);
  EXPECT_EQ(moved_from.error().kind(), ErrorKind::invalid_argument);
  EXPECT_EQ(set.set(0, EventRef()).error().code(), EINVAL);
  EXPECT_EQ(set.set(0, EventRef::of_fd(-1)).error().code(), EBADF);
  EXPECT_EQ(set.set(set.count(), events_[0]).error().code(), ERANGE);
  EXPECT_EQ(set.set(0xffffffff, refs(events_)).error().code(), ERANGE);
  EXPECT_EQ(set.clear(set.count()).error().code(), ERANGE);
  EXPECT_EQ(set.unmask_on(events_[0]).error().code(), ENOTTY) << "MSI-X";
  EXPECT_EQ(signalled_by(0), "a");
  EXPECT_EQ(disk_.enable_set(PciInterrupt::msi).error().code(), ENODEV) << "this disk has no MSI";
}

TEST_P(InterruptSetOnKernel, StaysOnAcrossAReset) {
  auto set = disk_.enable_set(msix, refs(std::span(events_).first(2))).value();
  ASSERT_TRUE(disk_.reset());
  EXPECT_EQ(signalled_by(0), "a");
  EXPECT_EQ(signalled_by(1), "b");
}

TEST_P(InterruptSetOnKernel, DeviceDisablesVectorsAndLeavesTheOthersOn) {
  ASSERT_TRUE(disk_.enable(msix, std::span(events_).first(4)));
  ASSERT_TRUE(disk_.disable(msix, 1, 2));
  EXPECT_EQ(signalled_by(0), "a");
  EXPECT_EQ(signalled_by(1), "");
  EXPECT_EQ(signalled_by(2), "");
  EXPECT_EQ(signalled_by(3), "d");
  EXPECT_EQ(disk_.disable(msix, 0, 0).error().code(), EINVAL);
  EXPECT_EQ(disk_.disable(msix, 1, disk_.interrupt(msix).count).error().code(), ERANGE);
  ASSERT_TRUE(disk_.disable(msix));
  ASSERT_TRUE(disk_.disable(msix, 1, 2));
  EXPECT_FALSE(is_msix_on()) << "turning vectors off turns nothing on";
  ASSERT_TRUE(disk_.enable(msix, std::span(events_).first(1)));
  ASSERT_TRUE(disk_.disable(msix, 0, disk_.interrupt(msix).count));
  EXPECT_FALSE(is_msix_on());
}

TEST_P(InterruptSetOnKernel, DeviceRefusesWhatWouldTurnVectorsOffSilently) {
  auto source = make_events(2);
  const Event taken = std::move(source[1]);
  const auto empty = disk_.enable(msix, source);
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().code(), EBADF);
  EXPECT_THAT(empty.error().message(), HasSubstr("vector 1 was moved from"));
  const auto none = disk_.enable(msix, {});
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().message(), HasSubstr("no events are given; turn vectors off with disable()"));
  EXPECT_TRUE(none.error().remedies().contains(RemedyCode::turn_vectors_off));
  const auto notified = disk_.notify(msix, events_[0]);
  ASSERT_FALSE(notified);
  EXPECT_EQ(notified.error().code(), EINVAL);
  EXPECT_TRUE(notified.error().remedies().contains(RemedyCode::enable_instead_of_notifying));
  EXPECT_FALSE(is_msix_on());
}

INSTANTIATE_TEST_SUITE_P(Backends, InterruptSetOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

class EduInterruptSet : public test::EduFixture {};

TEST_P(EduInterruptSet, UnmasksIntxOnAnEvent) {
  const auto events = make_events(3);
  auto set = pci_->enable_set(PciInterrupt::intx, refs(std::span(events).first(1))).value();
  const Event& arrived = events[0];
  const Event& unmask = events[1];
  ASSERT_TRUE(set.unmask_on(unmask));
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  EXPECT_EQ(arrived.wait(50ms).value(), 0U) << "it masked itself";
  ASSERT_TRUE(unmask.signal());
  EXPECT_EQ(arrived.wait(10s).value(), 1U) << "the line is still up";
  edu_->acknowledge(1);
  ASSERT_TRUE(unmask.signal());
  EXPECT_EQ(arrived.wait(50ms).value(), 0U);
  ASSERT_TRUE(set.unmask_on(events[2])) << "another one in its place";
  edu_->raise(2);
  EXPECT_EQ(arrived.wait(10s).value(), 1U) << "it was unmasked";
  ASSERT_TRUE(events[2].signal());
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  ASSERT_TRUE(set.unmask_on({}));
  ASSERT_TRUE(events[2].signal());
  EXPECT_EQ(arrived.wait(50ms).value(), 0U) << "nothing unmasks it";
  EXPECT_EQ(events[2].take().value(), 1U) << "nobody but us takes it";
  edu_->acknowledge(2);
}

TEST_P(EduInterruptSet, KeepsTheEventThatUnmasksWhereAnotherIsRefused) {
  const auto events = make_events(2);
  auto set = pci_->enable_set(PciInterrupt::intx, refs(std::span(events).first(1))).value();
  ASSERT_TRUE(set.unmask_on(events[1]));
  const int no_eventfd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  EXPECT_EQ(set.unmask_on(EventRef::of_fd(no_eventfd)).error().code(), EINVAL);
  ::close(no_eventfd);
  edu_->raise(1);
  EXPECT_EQ(events[0].wait(10s).value(), 1U);
  ASSERT_TRUE(events[1].signal());
  EXPECT_EQ(events[0].wait(10s).value(), 1U);
  edu_->acknowledge(1);
}

TEST_P(EduInterruptSet, MovesIntxAndTriggersIt) {
  const auto events = make_events(2);
  auto set = pci_->enable_set(PciInterrupt::intx).value();
  edu_->raise(1);
  ASSERT_TRUE(set.set(0, events[0]));
  edu_->acknowledge(1);
  ASSERT_TRUE(pci_->device().unmask_interrupt(0, 0));
  (void)events[0].take();
  ASSERT_TRUE(set.trigger(0));
  EXPECT_EQ(events[0].wait(10s).value(), 1U);
  ASSERT_TRUE(set.set(0, events[1]));
  ASSERT_TRUE(set.trigger(0));
  EXPECT_EQ(events[0].take().value(), 0U);
  EXPECT_EQ(events[1].take().value(), 1U);
}

TEST_P(EduInterruptSet, MsiArrivesUntilTheSetGoes) {
  ASSERT_TRUE(pci_->enable_bus_master());
  const auto events = make_events(1);
  auto set = std::make_unique<InterruptSet>(pci_->enable_set(PciInterrupt::msi, refs(events)).value());
  edu_->raise(1);
  EXPECT_EQ(events[0].wait(10s).value(), 1U);
  edu_->acknowledge(1);
  set.reset();
  edu_->raise(1);
  EXPECT_EQ(events[0].wait(50ms).value(), 0U);
  edu_->acknowledge(1);
}

INSTANTIATE_TEST_SUITE_P(Backends, EduInterruptSet, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

}  // namespace interrupt_set_test
}  // namespace postern
