// SPDX-License-Identifier: Apache-2.0
// InterruptSet on a kernel that cannot add vectors, or that fails to restore them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/interrupt_set.hpp>
#include <postern/pci_function.hpp>

namespace postern {
namespace interrupt_set_test {

using testing::ElementsAre;
using testing::HasSubstr;

sim::Host without_dynamic_msix() {
  sim::Host host = sim::pc();
  host.dynamic_msix = false;
  return host;
}

// A VFIO_DEVICE_SET_IRQS request as text: "off", or the first vector and the count.
std::string text_of(const vfio_irq_set& set) {
  if ((set.flags & VFIO_IRQ_SET_DATA_NONE) != 0) return set.count == 0 ? "off" : "trigger";
  return std::to_string(set.start) + "+" + std::to_string(set.count);
}

class Vectors : public testing::Test {
 protected:
  explicit Vectors(const sim::Host& host = without_dynamic_msix()) : simulated_(host) {
    for (int i = 0; i < 6; ++i) events_.push_back(Event::create(kernel_).value());
    kernel_.answer = [this](unsigned long request, void* argument, int result) {
      if (request == VFIO_DEVICE_SET_IRQS) calls_.push_back(text_of(*static_cast<vfio_irq_set*>(argument)));
      return result;
    };
  }
  std::vector<EventRef> first(std::size_t count) {
    return {events_.begin(), events_.begin() + static_cast<std::ptrdiff_t>(count)};
  }
  InterruptSet turned_on(std::size_t count) {
    auto set = disk_.enable_set(PciInterrupt::msix, first(count)).value();
    calls_.clear();
    return set;
  }
  // Makes the requests with these texts fail.
  void refuse(std::vector<std::string> texts, int code) {
    kernel_.refuse = [texts = std::move(texts), code](unsigned long request, void* argument) {
      if (request != VFIO_DEVICE_SET_IRQS) return 0;
      const std::string text = text_of(*static_cast<vfio_irq_set*>(argument));
      return std::count(texts.begin(), texts.end(), text) != 0 ? -code : 0;
    };
  }
  std::string signalled_by(InterruptSet& set, std::uint32_t vector) {
    EXPECT_TRUE(set.trigger(vector));
    std::string names;
    for (std::size_t i = 0; i < events_.size(); ++i) {
      if (events_[i].take().value() != 0) names += static_cast<char>('a' + i);
    }
    return names;
  }

  sim::Kernel simulated_;
  sim::FailingKernel kernel_{simulated_};
  std::vector<std::string> calls_;
  std::vector<Event> events_;
  PciDevice disk_ =
      PciDevice::open(attach(kernel_, find_pci_function(kernel_, {.device = 1}).value().host).value()).value();
};

TEST_F(Vectors, AreTurnedOffAndOnAgainWhereTheKernelCannotAddOne) {
  ASSERT_FALSE(disk_.interrupt(PciInterrupt::msix).resizable);
  auto set = turned_on(2);
  ASSERT_TRUE(set.set(4, events_[4]));
  EXPECT_THAT(calls_, ElementsAre("off", "0+5"));
  EXPECT_EQ(signalled_by(set, 0), "a");
  EXPECT_EQ(signalled_by(set, 1), "b");
  EXPECT_EQ(signalled_by(set, 4), "e");
  calls_.clear();
  ASSERT_TRUE(set.set(2, events_[2]));
  ASSERT_TRUE(set.clear(0));
  ASSERT_TRUE(set.set(4, events_[5]));
  EXPECT_THAT(calls_, ElementsAre("2+1", "0+1", "4+1")) << "the kernel has those";
  EXPECT_EQ(signalled_by(set, 4), "f");
}

TEST_F(Vectors, ThatTheKernelDoesNotHaveAreTurnedOffWithoutACall) {
  auto set = turned_on(2);
  ASSERT_TRUE(set.clear(9));
  EXPECT_THAT(calls_, ElementsAre());
  const std::array<EventRef, 4> block = {EventRef(events_[3])};
  ASSERT_TRUE(set.set(1, block));
  EXPECT_THAT(calls_, ElementsAre("1+1"));
  EXPECT_EQ(signalled_by(set, 1), "d");
}

TEST_F(Vectors, AreReservedByEventsThatAreNone) {
  std::vector<EventRef> events = first(1);
  events.resize(8);
  auto set = disk_.enable_set(PciInterrupt::msix, events).value();
  calls_.clear();
  ASSERT_TRUE(set.set(7, events_[1]));
  EXPECT_THAT(calls_, ElementsAre("7+1"));
}

TEST_F(Vectors, AreAsBeforeWhereMoreOfThemFail) {
  auto set = turned_on(2);
  refuse({"0+5"}, ENOSPC);
  const auto failed = set.set(4, events_[4]);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ENOSPC);
  EXPECT_TRUE(failed.error().causes().empty());
  EXPECT_EQ(signalled_by(set, 0), "a");
  EXPECT_EQ(signalled_by(set, 1), "b");
  EXPECT_FALSE(set.has_event(4));
  kernel_.refuse = nullptr;
  EXPECT_TRUE(set.set(4, events_[4]));
  EXPECT_EQ(signalled_by(set, 4), "e");
}

TEST_F(Vectors, OfWhichTheHostHasTooFewAreAsBefore) {
  auto set = turned_on(2);
  kernel_.answer = [](unsigned long request, void* argument, int result) {
    if (request != VFIO_DEVICE_SET_IRQS || text_of(*static_cast<vfio_irq_set*>(argument)) != "0+5") return result;
    return 3;  // the number that pci_alloc_irq_vectors could allocate
  };
  const auto failed = set.set(4, events_[4]);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ENOSPC);
  EXPECT_THAT(failed.error().message(), HasSubstr("only 3 vectors left"));
}

TEST_F(Vectors, ThatCannotBeTurnedOnAgainAreTold) {
  auto set = turned_on(2);
  refuse({"0+5", "0+2"}, ENOMEM);
  const auto failed = set.set(4, events_[4]);
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code(), ENOMEM);
  EXPECT_EQ(failed.error().causes().size(), 1U);
  EXPECT_FALSE(set.has_event(0));
  EXPECT_FALSE(set.has_event(1));
  kernel_.refuse = nullptr;
  ASSERT_TRUE(set.set(1, events_[1])) << "it is turned on again";
  EXPECT_EQ(signalled_by(set, 1), "b");
}

TEST_F(Vectors, StayOnWhereTheyCannotBeTurnedOff) {
  auto set = turned_on(2);
  refuse({"off"}, ENOMEM);
  EXPECT_EQ(set.set(4, events_[4]).error().code(), ENOMEM);
  EXPECT_EQ(signalled_by(set, 0), "a");
  const auto failed = set.disable();
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), HasSubstr("MSI-X, all vectors"));
  EXPECT_EQ(signalled_by(set, 1), "b");
  kernel_.refuse = nullptr;
  EXPECT_TRUE(set.disable());
}

TEST_F(Vectors, OfASetThatCouldNotBeMadeAreFreeForAnother) {
  refuse({"0+2"}, ENOMEM);
  EXPECT_EQ(disk_.enable_set(PciInterrupt::msix, first(2)).error().code(), ENOMEM);
  EXPECT_TRUE(disk_.enable_set(PciInterrupt::msix, first(1)));
  EXPECT_EQ(disk_.enable_set(PciInterrupt::msix, std::vector<EventRef>(1000)).error().code(), ERANGE);
  EXPECT_TRUE(disk_.enable(PciInterrupt::msix, std::span(events_).first(1)));
}

TEST_F(Vectors, OfAChildOfForkAreLeftAlone) {
  auto set = std::make_unique<InterruptSet>(turned_on(2));
  const pid_t child = ::fork();
  if (child == 0) {
    calls_.clear();
    set.reset();
    ::_exit(calls_.empty() ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(signalled_by(*set, 1), "b");
}

TEST_F(Vectors, OfDeviceAreNamedInErrors) {
  ASSERT_TRUE(disk_.enable(PciInterrupt::msix, std::span(events_).first(2)));
  refuse({"off"}, ENOMEM);
  const auto failed = disk_.disable(PciInterrupt::msix);
  ASSERT_FALSE(failed);
  EXPECT_THAT(failed.error().message(), HasSubstr("0000:00:01.0 MSI-X, all vectors: VFIO_DEVICE_SET_IRQS"));
  const auto intx = disk_.disable(PciInterrupt::intx);
  ASSERT_FALSE(intx);
  EXPECT_THAT(intx.error().message(), HasSubstr("0000:00:01.0 INTx: VFIO_DEVICE_SET_IRQS"));
}

class DynamicVectors : public Vectors {
 protected:
  DynamicVectors() : Vectors(sim::pc()) {}
};

TEST_F(DynamicVectors, AreAddedWithoutTurningTheOthersOff) {
  auto set = turned_on(2);
  ASSERT_TRUE(set.set(4, events_[4]));
  EXPECT_THAT(calls_, ElementsAre("4+1"));
}

}  // namespace interrupt_set_test
}  // namespace postern
