// SPDX-License-Identifier: Apache-2.0
// The contract of attach() for each backend: an error names the cause and the remedy.
#include <gmock/gmock.h>

#include <algorithm>

#include "support/host_devices.hpp"
#include "support/watched_kernel.hpp"

namespace postern {
namespace attach_test {

using test::Bound;
using test::ResourceUse;
using ::testing::AllOf;
using ::testing::HasSubstr;

class AttachOnKernel : public ::testing::TestWithParam<test::Interface> {
 protected:
  AttachOnKernel() : before_(ResourceUse::now()) {}
  ~AttachOnKernel() override { EXPECT_TRUE(before_ == ResourceUse::now()) << "something was left behind"; }

  static std::string refusal(const HostDevice& device, int code) {
    auto refused = attach(test::kernel(), device, test::options_for(GetParam()));
    EXPECT_FALSE(refused);
    if (refused) return "";
    EXPECT_EQ(refused.error().code(), code) << refused.error().message();
    return refused.error().message();
  }

 private:
  ResourceUse before_;
};

TEST_P(AttachOnKernel, ADeviceOfAnotherDriverIsRefusedAndTheDriverIsNamed) {
  const HostDevice disk = find_pci_function(test::kernel(), test::last_nvme()).value().host;
  ASSERT_EQ(disk.driver, "nvme");
  EXPECT_THAT(refusal(disk, ENODEV),
              AllOf(HasSubstr("bound to nvme"), HasSubstr("bind " + disk.name + " to a VFIO driver")));
}

TEST_P(AttachOnKernel, AGroupThatIsNotViableIsRefusedAndEveryMemberInTheWayIsNamed) {
  const auto twins = test::twins();
  if (!twins) GTEST_SKIP() << "this host has no two NVMe functions in one slot";
  const Bound bound(twins->first);
  const std::string other = to_string(twins->second);
  EXPECT_THAT(refusal(bound.host(), EPERM), AllOf(HasSubstr("not viable"), HasSubstr(other + " (driver nvme)"),
                                                  HasSubstr("bind " + other + " to a VFIO driver")));
}

TEST_P(AttachOnKernel, ADeviceThatIsInUseIsRefusedWhicheverInterfaceHasIt) {
  const Bound bound(test::first_nvme());
  for (const test::Interface holder : test::interfaces()) {
    auto first = attach(test::kernel(), bound.host(), test::options_for(holder));
    ASSERT_TRUE(first) << first.error().message();
    // For a second open of the same cdev the kernel returns EINVAL (vfio_df_open).
    const bool by_cdev_twice = holder.backend == "iommufd" && GetParam().backend == "iommufd";
    EXPECT_THAT(refusal(bound.host(), by_cdev_twice ? EINVAL : EBUSY), HasSubstr(bound.host().name));
  }
}

TEST_P(AttachOnKernel, ADeviceThatWasDetachedCanBeAttachedAgain) {
  const Bound bound(test::first_nvme());
  for (int times = 0; times < 3; ++times) {
    auto device = attach(test::kernel(), bound.host(), test::options_for(GetParam()));
    ASSERT_TRUE(device) << device.error().message();
    EXPECT_EQ(device->container()->backend(), GetParam().backend);
  }
}

TEST_P(AttachOnKernel, LooksAtEachNodeOnceAndOpensItOnce) {
  const Bound bound(test::first_nvme());
  const HostDevice host = bound.host();
  test::WatchedKernel watched(test::kernel());
  std::vector<std::string> nodes = {"/dev/vfio/vfio", "/dev/vfio/" + to_string(*host.iommu_group)};
  if (GetParam().backend == "iommufd") nodes = {"/dev/iommu", host.cdev->path};
  std::vector<std::string_view> names = {GetParam().backend};
  if (GetParam().backend == backends().front()->name) names.emplace_back("auto");  // then tries only this one
  for (const std::string_view name : names) {
    watched.begin(-1, 0);
    auto options = test::options_for(GetParam());
    options.backend = name;
    const auto device = attach(watched, host, options);
    ASSERT_TRUE(device) << device.error().message();
    for (const std::string& node : nodes) {
      EXPECT_EQ(watched.calls_of("open", node), 1) << node;
      EXPECT_LE(watched.calls_of("access", node), 1) << node;
      EXPECT_LE(watched.calls_of("status", node), 1) << node;
    }
    const auto calls = watched.calls_made();
    const auto times = [&](std::string_view call) {
      return std::count_if(calls.begin(), calls.end(), [&](const auto& each) { return each.name == call; });
    };
    EXPECT_LE(times("VFIO_GET_API_VERSION"), 1);
    EXPECT_LE(times("VFIO_GROUP_GET_STATUS"), 1);
  }
}

TEST_P(AttachOnKernel, AGroupInAnotherContainerOfThisProcessIsNamed) {
  const auto twins = test::twins();
  if (!twins) GTEST_SKIP() << "this host has no two NVMe functions in one slot";
  const Bound bound(twins->first);
  const Bound other(twins->second);
  for (const test::Interface holder : test::interfaces()) {
    auto first = attach(test::kernel(), bound.host(), test::options_for(holder));
    ASSERT_TRUE(first) << first.error().message();
    auto refused = attach(test::kernel(), other.host(), test::options_for(GetParam()));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().kind(), ErrorKind::cannot_share) << refused.error().message();
    EXPECT_FALSE(refused.error().refused()) << "a call of the kernel's failed";
    EXPECT_THAT(refused.error().message(),
                AllOf(HasSubstr(bound.host().name), HasSubstr("in another container of this process")));
    EXPECT_TRUE(refused.error().remedies().contains(RemedyCode::attach_to_that_container));
    if (holder.backend != GetParam().backend) continue;
    auto options = test::options_for(GetParam());
    options.container = first->container();
    const auto second = attach(test::kernel(), other.host(), options);
    EXPECT_TRUE(second) << second.error().message();
  }
}

INSTANTIATE_TEST_SUITE_P(Backends, AttachOnKernel, ::testing::ValuesIn(test::interfaces()), test::interface_name);

std::string driver_override(const HostDevice& device) {
  std::string text;
  EXPECT_EQ(test::kernel().read_file(device.sysfs_path + "/driver_override", text), 0);
  return text;
}

TEST(Binding, IsTakenBackToTheDriverThatTheDeviceHad) {
  for (const PciAddress address : {test::first_nvme(), test::last_nvme()}) {
    const auto before = find_pci_function(test::kernel(), address).value().host;
    const std::string override = driver_override(before);
    { const Bound bound(address); }
    EXPECT_EQ(find_pci_function(test::kernel(), address).value().host.driver, before.driver);
    EXPECT_EQ(driver_override(before), override);
  }
}

TEST(Auto, TakesTheBestInterfaceThatTheHostHas) {
  const Bound bound(test::first_nvme());
  EXPECT_EQ(attach(test::kernel(), bound.host()).value().container()->backend(), test::interfaces().front().backend);
}

TEST(Auto, ReportsEveryRefusal) {
  const auto disk = find_pci_function(test::kernel(), test::last_nvme()).value();
  auto refused = attach(test::kernel(), disk.host);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENODEV);
  EXPECT_EQ(refused.error().kind(), ErrorKind::not_bound) << refused.error().message();
  EXPECT_EQ(refused.error().causes().size(), backends().size());
}

}  // namespace attach_test
}  // namespace postern
