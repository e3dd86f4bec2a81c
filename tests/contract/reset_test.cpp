// SPDX-License-Identifier: Apache-2.0
// The contract of hot reset for each backend: it resets all devices of a bus, and is refused unless we own all of them.
#include <gmock/gmock.h>

#include <algorithm>
#include <postern-nvme/controller.hpp>
#include <postern/dma_buffer.hpp>
#include <postern/reset_set.hpp>

#include "support/host_devices.hpp"

namespace postern {
namespace reset_test {

using test::Bound;
using test::is_running;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A hot reset of two functions of one slot.
class HotResetOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  HotResetOnKernel() : before_(ResourceUse::now()) {}
  ~HotResetOnKernel() override { EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind"; }
  void SetUp() override {
    if (!twins_) GTEST_SKIP() << "this host has no two NVMe functions in one slot";
  }

  static PciDevice open(const Bound& bound, std::shared_ptr<Container> container = nullptr) {
    AttachOptions options = test::options_for(GetParam());
    options.container = std::move(container);
    return PciDevice::open(attach(test::kernel(), bound.host(), options).value()).value();
  }
  static bool by_group() { return GetParam().backend != "iommufd"; }

  const std::optional<std::pair<PciAddress, PciAddress>> twins_ = test::twins();

 private:
  ResourceUse before_;
};

TEST_P(HotResetOnKernel, AHotResetStopsEveryDeviceOfTheBusAndMappingsStay) {
  const Bound bound_a(twins_->first);
  const Bound bound_b(twins_->second);
  PciDevice a = open(bound_a);
  PciDevice b = open(bound_b, a.device().container());
  const auto container = a.device().container();
  IovaAllocator iovas(container->usable_ranges(), container->page_sizes());
  const auto buffer = DmaBuffer::allocate(container, iovas, 4096).value();
  {
    const auto first = nvme::Controller::open(a, iovas);
    ASSERT_TRUE(first) << first.error().message();
    const auto second = nvme::Controller::open(b, iovas);
    ASSERT_TRUE(second) << second.error().message();
    EXPECT_TRUE(is_running(a));
    EXPECT_TRUE(is_running(b));

    const std::array<const Device*, 1> also_owned = {&b.device()};
    const auto set = ResetSet::of(a.device(), also_owned);
    ASSERT_TRUE(set) << set.error().message();
    ASSERT_EQ(set->members().size(), 2U);
    EXPECT_EQ(set->members()[0].address, twins_->first);
    EXPECT_EQ(set->members()[1].address, twins_->second);
    EXPECT_EQ(set->members()[0].group, bound_a.host().iommu_group);
    EXPECT_EQ(set->members()[1].device_id.has_value(), !by_group());
    ASSERT_TRUE(set->complete());
    const std::size_t mappings = container->mapping_count();
    const auto done = set->reset();
    ASSERT_TRUE(done) << done.error().message();
    EXPECT_FALSE(is_running(a));
    EXPECT_FALSE(is_running(b));
    EXPECT_EQ(container->mapping_count(), mappings);
  }
  // Both work again, with memory mapped before the reset and with interrupts enabled again.
  std::uint8_t number = 0;
  for (PciDevice* pci : {&a, &b}) {
    auto again = nvme::Controller::open(*pci, iovas, {.completion = nvme::Completion::msix});
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(again->info().serial, "twin" + std::to_string(number++));
    std::ranges::fill(buffer.bytes(), std::byte{0xa5});
    ASSERT_TRUE(again->read(again->namespaces().at(0), 0, 8, buffer.iova()));
    EXPECT_LT(std::ranges::count(buffer.bytes(), std::byte{0xa5}), 128) << "nothing came from the disk";
  }
}

TEST_P(HotResetOnKernel, ATwinThatIsNotOpenedIsOursThroughItsGroup) {
  const Bound bound_a(twins_->first);
  const Bound bound_b(twins_->second);
  PciDevice a = open(bound_a);
  IovaAllocator iovas(a.device().container()->usable_ranges(), a.device().container()->page_sizes());
  const auto controller = nvme::Controller::open(a, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  const auto set = ResetSet::of(a.device());
  ASSERT_TRUE(set) << set.error().message();
  ASSERT_TRUE(set->complete());
  EXPECT_EQ(set->members()[0].device_id.has_value(), !by_group());
  EXPECT_FALSE(set->members()[1].device_id);
  const auto done = set->reset();
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_FALSE(is_running(a));
}

TEST_P(HotResetOnKernel, ATwinWithoutADriverIsInTheWayThoughItsGroupIsOurs) {
  const Bound bound_a(twins_->first);
  const Bound bound_b(twins_->second);
  ASSERT_EQ(test::kernel().write_file(bound_b.host().sysfs_path + "/driver/unbind", to_string(twins_->second)), 0);
  PciDevice a = open(bound_a);
  IovaAllocator iovas(a.device().container()->usable_ranges(), a.device().container()->page_sizes());
  const auto controller = nvme::Controller::open(a, iovas);
  ASSERT_TRUE(controller) << controller.error().message();
  const auto set = ResetSet::of(a.device());
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_FALSE(set->complete());
  const auto refused = set->reset();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  EXPECT_THAT(refused.error().message(), AllOf(HasSubstr(to_string(twins_->second) + " (bound to no driver)"),
                                               HasSubstr("spare " + to_string(twins_->second) + ", bind it")));
  EXPECT_TRUE(is_running(a)) << "it was not touched";
}

TEST_P(HotResetOnKernel, ATwinThatAnotherDriverTookSinceIsTheKernelsToRefuse) {
  const Bound bound_a(twins_->first);
  const Bound bound_b(twins_->second);
  const PciDevice a = open(bound_a);
  const auto set = ResetSet::of(a.device());
  ASSERT_TRUE(set) << set.error().message();
  ASSERT_TRUE(set->complete());
  ASSERT_EQ(test::kernel().write_file(bound_b.host().sysfs_path + "/driver/unbind", to_string(twins_->second)), 0);
  const auto refused = set->reset();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_THAT(refused.error().message(), HasSubstr("has changed"));
}

class LoneDiskOnKernel : public ::testing::TestWithParam<test::Interface> {};

// A disk alone on its bus, or on a root bus, which has no hot reset.
TEST_P(LoneDiskOnKernel, IsHotResetAloneOrSaysThatItIsOnARootBus) {
  const Bound bound(test::first_nvme());
  const Device device = attach(test::kernel(), bound.host(), test::options_for(GetParam())).value();
  const auto set = ResetSet::of(device);
  if (!set) {
    EXPECT_EQ(set.error().code(), ENODEV);
    EXPECT_THAT(set.error().message(), AllOf(HasSubstr(bound.host().name), HasSubstr("root bus")));
    return;
  }
  ASSERT_EQ(set->members().size(), 1U);
  EXPECT_EQ(set->members()[0].group, bound.host().iommu_group);
  EXPECT_TRUE(set->complete());
  const auto done = set->reset();
  EXPECT_TRUE(done) << done.error().message();
}

INSTANTIATE_TEST_SUITE_P(Backends, HotResetOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);
INSTANTIATE_TEST_SUITE_P(Backends, LoneDiskOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

}  // namespace reset_test
}  // namespace postern
