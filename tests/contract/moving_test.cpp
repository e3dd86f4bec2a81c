// SPDX-License-Identifier: Apache-2.0
// The contract of move_device(): with iommufd a device goes from one container to another and works on; with the other
// backends it stays, and the error says what to do.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <postern/dirty_tracker.hpp>

#include "support/edu_fixture.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace moving_test {

using namespace std::chrono_literals;
using test::Bound;
using test::EduRegisters;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::uint64_t page = 65536;  // a multiple of every host's and IOMMU's page size
constexpr Iova base{0x4000000};        // usable with every IOMMU and by edu

Mmap memory(std::uint64_t pages) {
  return {test::kernel(), ::mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
          pages * page};
}
bool is_of_iommufd(test::Interface interface) { return interface.backend == "iommufd"; }
std::shared_ptr<Container> open(Kernel& kernel, test::Interface interface, std::shared_ptr<const Fd> fd = nullptr) {
  return Container::open(kernel, *find_backend(interface.backend).value(),
                         {.version = interface.version, .fd = std::move(fd)})
      .value();
}

class MovingOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  MovingOnKernel() : bound_(test::first_nvme()), before_(ResourceUse::now()), memory_(memory(2)) {}
  ~MovingOnKernel() override {
    memory_ = {};
    EXPECT_EQ(kernel_.open_files(), 0);
    EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind";
  }

  Device attach_first() {
    auto attached = attach(kernel_, bound_.host(), test::options_for(GetParam()));
    EXPECT_TRUE(attached) << attached.error().message();
    return std::move(*attached);
  }
  void expect_to_work(const Device& device) {
    std::array<std::byte, 2> vendor{};
    EXPECT_TRUE(device.read(VFIO_PCI_CONFIG_REGION_INDEX, 0, vendor));
    EXPECT_NE(vendor[0], std::byte{0xff});
    const auto mapped = device.container()->map(base, memory_.bytes());
    ASSERT_TRUE(mapped) << mapped.error().message();
    EXPECT_TRUE(device.container()->unmap(base, memory_.bytes().size()));
  }
  void expect_refused(Device& device, const std::shared_ptr<Container>& container, int code, const std::string& text) {
    const auto home = device.container();
    const auto refused = move_device(device, container);
    ASSERT_FALSE(refused) << text;
    EXPECT_EQ(refused.error().code(), code) << refused.error().message();
    EXPECT_TRUE(refused.error().refused());
    EXPECT_THAT(refused.error().message(), AllOf(HasSubstr("move " + device.name()), HasSubstr(text)));
    EXPECT_EQ(device.container(), home);
    EXPECT_TRUE(container->devices().empty());
    expect_to_work(device);
  }

  test::WatchedKernel kernel_{test::kernel()};
  Bound bound_;
  ResourceUse before_;
  Mmap memory_;
};

TEST_P(MovingOnKernel, GoesThereAndBackWithoutBeingClosed) {
  if (!is_of_iommufd(GetParam())) GTEST_SKIP() << "the other backends cannot";
  Device device = attach_first();
  const auto first = device.container();
  const auto second = open(kernel_, GetParam());
  const auto usable = first->usable_ranges();
  const int fd = device.fd();
  for (int times = 0; times < 2; ++times) {
    const auto there = move_device(device, second);
    ASSERT_TRUE(there) << there.error().message();
    EXPECT_EQ(device.container(), second);
    EXPECT_TRUE(first->devices().empty());
    EXPECT_EQ(second->devices().size(), 1U);
    EXPECT_EQ(second->usable_ranges(), usable);
    expect_to_work(device);
    EXPECT_EQ(first->map(base, memory_.bytes()).error().code(), ENODEV) << "it has no device";
    const auto back = move_device(device, first);
    ASSERT_TRUE(back) << back.error().message();
    expect_to_work(device);
  }
  EXPECT_EQ(device.fd(), fd);
  EXPECT_TRUE(second->close());
  expect_refused(device, second, EBADF, "the container was closed");
  EXPECT_TRUE(device.detach());
}

TEST_P(MovingOnKernel, OutlivesTheContainerThatItLeft) {
  if (!is_of_iommufd(GetParam())) GTEST_SKIP() << "the other backends cannot";
  Device device = attach_first();
  ASSERT_TRUE(device.container()->map(base, memory_.bytes()));
  ASSERT_TRUE(move_device(device, open(kernel_, GetParam())));
  EXPECT_EQ(ResourceUse::now().pinned, before_.pinned) << "what the old container had mapped is gone with it";
  expect_to_work(device);
}

TEST_P(MovingOnKernel, IsRefusedWhereTheKernelKeepsTheGroupInItsContainer) {
  if (is_of_iommufd(GetParam())) GTEST_SKIP() << "there it moves";
  Device device = attach_first();
  const auto target = open(kernel_, GetParam());
  expect_refused(device, target, EOPNOTSUPP, "only while no device of it is open; detach the device");
  // The remedy.
  ASSERT_TRUE(device.detach());
  const auto anew = attach(kernel_, bound_.host(), {.container = target});
  ASSERT_TRUE(anew) << anew.error().message();
  expect_to_work(*anew);
}

TEST_P(MovingOnKernel, IsRefusedBetweenBackends) {
  Device device = attach_first();
  for (const test::Interface other : test::interfaces()) {
    if (other.backend == GetParam().backend) continue;
    expect_refused(device, open(kernel_, other), EOPNOTSUPP,
                   "it is open in a container " + std::string(GetParam().backend));
  }
}

TEST_P(MovingOnKernel, NeedsOneOpenFileOfTheKernelForBoth) {
  if (!is_of_iommufd(GetParam())) GTEST_SKIP() << "the other backends cannot";
  const auto opened = [&] {
    return std::make_shared<const Fd>(kernel_, kernel_.open("/dev/iommu", O_RDWR | O_CLOEXEC));
  };
  AttachOptions options = test::options_for(GetParam());
  options.container_options.fd = opened();
  auto device = attach(kernel_, bound_.host(), options).value();
  expect_refused(device, open(kernel_, GetParam()), EINVAL, "/dev/iommu opened twice");
  expect_refused(device, open(kernel_, GetParam(), opened()), EINVAL, "/dev/iommu opened twice");
  const auto moved = move_device(device, open(kernel_, GetParam(), options.container_options.fd));
  ASSERT_TRUE(moved) << moved.error().message();
  expect_to_work(device);
}

TEST_P(MovingOnKernel, TakesNoOtherMemberOfItsGroupAlong) {
  const auto twins = test::twins();
  if (!twins || !is_of_iommufd(GetParam())) GTEST_SKIP() << "two functions of one slot, with iommufd";
  const Bound bound(twins->first);
  const Bound other(twins->second);
  auto device = attach(kernel_, bound.host(), test::options_for(GetParam())).value();
  auto mate = attach(kernel_, other.host(), {.container = device.container()}).value();
  const auto target = open(kernel_, GetParam());
  expect_refused(device, target, EBUSY, mate.name() + " of the same IOMMU group");
  // The remedy.
  ASSERT_TRUE(mate.detach());
  const auto moved = move_device(device, target);
  ASSERT_TRUE(moved) << moved.error().message();
  const auto followed = attach(kernel_, other.host(), {.container = target});
  ASSERT_TRUE(followed) << followed.error().message();
  EXPECT_EQ(target->devices().size(), 2U);
}

INSTANTIATE_TEST_SUITE_P(Backends, MovingOnKernel, ::testing::ValuesIn(test::newest_interfaces()),
                         test::interface_name);

// With a second container that has another device and other memory at the same iovas.
class MovingEdu : public test::EduFixture {
 protected:
  void SetUp() override {
    if (!is_of_iommufd(GetParam())) GTEST_SKIP() << "the other backends cannot";
    EduFixture::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_TRUE(pci_->enable_bus_master());
    old_ = pci_->device().container();
    disk_.emplace(test::first_nvme());
    other_.emplace(attach(test::kernel(), disk_->host(), test::options_for(GetParam())).value());
    ASSERT_TRUE(old_->map(base, here_.bytes()));
    ASSERT_TRUE(target().map(base, there_.bytes()));
  }
  void TearDown() override {
    pci_.reset();
    other_.reset();
    old_.reset();
  }
  [[nodiscard]] Container& target() const { return *other_->container(); }
  void move() {
    const auto moved = move_device(pci_->device(), other_->container());
    ASSERT_TRUE(moved) << moved.error().message();
  }
  // Lets the device write 8 bytes of its buffer at the start of a page.
  void write(std::uint64_t number) const {
    edu_->copy(EduRegisters::buffer, base.value + number * page, 8, EduRegisters::to_memory);
  }
  // Fills the start of the device's buffer from a page.
  void read(std::uint64_t number) const { edu_->copy(base.value + number * page, EduRegisters::buffer, 8, 0); }

  Mmap here_ = memory(4);
  Mmap there_ = memory(4);
  std::optional<Bound> disk_;
  std::shared_ptr<Container> old_;
  std::optional<Device> other_;
};

TEST_P(MovingEdu, ItsDmaGoesWhereTheNewContainerMapsAndAllElseStays) {
  const Event arrived = Event::create(test::kernel()).value();
  ASSERT_TRUE(pci_->enable(PciInterrupt::msi, std::span(&arrived, 1)));
  const Mmap bar = pci_->map_bar(0).value();
  const auto* const identification = reinterpret_cast<const volatile std::uint32_t*>(bar.data());
  edu_->write(4, 0x12345678);
  std::memcpy(here_.data(), "in here", 8);
  std::memcpy(there_.data(), "outside", 8);
  read(0);
  write(1);
  EXPECT_STREQ(reinterpret_cast<const char*>(here_.data() + page), "in here");
  move();
  EXPECT_EQ(edu_->read(4), ~0x12345678U) << "its state";
  EXPECT_EQ(*identification, 0x010000edU) << "a BAR that was mapped before";
  write(2);
  EXPECT_STREQ(reinterpret_cast<const char*>(there_.data() + 2 * page), "in here");
  read(0);
  write(3);
  EXPECT_STREQ(reinterpret_cast<const char*>(there_.data() + 3 * page), "outside");
  EXPECT_EQ(here_.data()[2 * page], std::byte{0});
  EXPECT_EQ(here_.data()[3 * page], std::byte{0});
  EXPECT_EQ(arrived.take().value(), 0U);
  edu_->raise(1);
  EXPECT_EQ(arrived.wait(10s).value(), 1U);
  edu_->acknowledge(1);
  ASSERT_TRUE(old_->close()) << "it is not needed any more";
  write(1);
  EXPECT_STREQ(reinterpret_cast<const char*>(there_.data() + page), "outside");
  EXPECT_EQ(target().devices().size(), 2U);
}

TEST_P(MovingEdu, NoPageThatItWroteIsMissedInEither) {
  constexpr std::uint64_t small = 4096;
  const auto is_dirty = [&](Container& container, std::uint64_t number) {
    std::vector<std::uint64_t> words(DirtyBitmap::words_for(4 * page, small));
    const auto answer =
        container.get<DirtyTracker>()->query({base, base + 4 * page - 1}, {small, words}, AfterQuery::keep);
    EXPECT_TRUE(answer) << answer.error().message();
    const std::uint64_t bit = number * (page / small);
    return (words[bit / 64] >> bit % 64 & 1) != 0;
  };
  ASSERT_TRUE(old_->get<DirtyTracker>()->start());
  ASSERT_TRUE(target().get<DirtyTracker>()->start());
  write(1);
  move();
  write(2);
  EXPECT_TRUE(is_dirty(*old_, 1));
  EXPECT_TRUE(is_dirty(target(), 2));
  const bool is_tracked = target().get<DirtyTracker>()->devices().back().source == DirtySource::iommu;
  if (is_tracked) {
    EXPECT_FALSE(is_dirty(*old_, 2) || is_dirty(target(), 1)) << "nor told where it did not write";
  }
  ASSERT_TRUE(old_->get<DirtyTracker>()->stop());
  ASSERT_TRUE(target().get<DirtyTracker>()->stop());
}

INSTANTIATE_TEST_SUITE_P(Backends, MovingEdu, ::testing::ValuesIn(test::newest_interfaces()), test::interface_name);

}  // namespace moving_test
}  // namespace postern
