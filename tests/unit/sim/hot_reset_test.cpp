// SPDX-License-Identifier: Apache-2.0
// ResetSet on the simulated kernel: two functions of one slot.
#include <gmock/gmock.h>

#include <postern/attach.hpp>
#include <postern/binding.hpp>
#include <postern/pci_device.hpp>
#include <postern/pci_function.hpp>
#include <postern/reset_set.hpp>
#include <postern/sim.hpp>

namespace postern {
namespace {

using ::testing::HasSubstr;

constexpr PciAddress alone{.device = 1};
constexpr PciAddress twin{.bus = 1};
constexpr PciAddress other_twin{.bus = 1, .function = 1};

class SimulatedHotReset : public ::testing::TestWithParam<const char*> {
 protected:
  HostDevice host(PciAddress address) { return find_pci_function(kernel_, address).value().host; }
  void bind(PciAddress address) { ASSERT_TRUE(bind_to_driver(kernel_, host(address), "vfio-pci")); }
  PciDevice open(PciAddress address, std::shared_ptr<Container> container = nullptr) {
    auto device = attach(kernel_, host(address), {.backend = GetParam(), .container = std::move(container)});
    EXPECT_TRUE(device) << device.error().message();
    return PciDevice::open(std::move(*device)).value();
  }

  SimulatedKernel kernel_;
};

TEST_P(SimulatedHotReset, ResetsBothWhereBothAreBound) {
  bind(twin);
  bind(other_twin);
  PciDevice first = open(twin);
  PciDevice second = open(other_twin, first.device().container());
  constexpr std::uint64_t queue_attributes = 0x24;  // a register that keeps what is written to it
  std::uint32_t value = 0x00ff00ff;
  const auto bytes = std::as_writable_bytes(std::span(&value, 1));
  for (PciDevice* device : {&first, &second}) ASSERT_TRUE(device->device().write(0, queue_attributes, bytes));
  const std::vector<const Device*> lent{&second.device()};
  const auto set = ResetSet::of(first.device(), lent);
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_EQ(set->members().size(), 2U);
  ASSERT_TRUE(set->complete());
  const auto done = set->reset();
  ASSERT_TRUE(done) << done.error().message();
  for (PciDevice* device : {&first, &second}) {
    ASSERT_TRUE(device->device().read(0, queue_attributes, bytes));
    EXPECT_EQ(value, 0U);
  }
}

TEST_P(SimulatedHotReset, TheGroupIsProofForAFunctionThatIsNotOpen) {
  bind(twin);
  bind(other_twin);
  const PciDevice first = open(twin);
  const auto set = ResetSet::of(first.device());
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_TRUE(set->complete());
  EXPECT_TRUE(set->reset());
}

TEST_P(SimulatedHotReset, AMemberWithoutAVfioDriverIsNamed) {
  bind(twin);
  bind(other_twin);
  const PciDevice first = open(twin);
  ASSERT_EQ(kernel_.write_file("/sys/bus/pci/drivers/vfio-pci/unbind", "0000:01:00.1"), 0);
  const auto set = ResetSet::of(first.device());
  ASSERT_TRUE(set) << set.error().message();
  const auto refused = set->reset();
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  EXPECT_THAT(refused.error().message(), HasSubstr("0000:01:00.1 (bound to no driver)"));
}

TEST_P(SimulatedHotReset, ARootBusCannotBeReset) {
  const PciDevice device = open(alone);
  EXPECT_EQ(ResetSet::of(device.device()).error().code(), ENODEV);
}

INSTANTIATE_TEST_SUITE_P(Backends, SimulatedHotReset, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace postern
