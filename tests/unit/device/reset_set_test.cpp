// SPDX-License-Identifier: Apache-2.0
// ResetSet on a fake bus: who owns its devices, refusals, and invalid answers of the kernel.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <postern/reset_set.hpp>

#include "device/device_io.hpp"
#include "iommu/group.hpp"
#include "support/tree_kernel.hpp"

namespace postern {
namespace reset_set_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int group_fd_base = 100;
constexpr std::uint32_t not_owned = ~std::uint32_t{0};
constexpr std::uint32_t owned_through_group = 0;

// A host with one bus, 02, whose IOMMU groups can be opened: the fd of group N is 100 + N.
class BusKernel : public test::TreeKernel {
 public:
  void add(const std::string& name, const std::string& driver, std::uint32_t group) {
    const std::string path = "/sys/bus/pci/devices/" + name;
    if (!driver.empty()) link(path + "/driver", "../../bus/pci/drivers/" + driver);
    link(path + "/iommu_group", "../../kernel/iommu_groups/" + std::to_string(group));
    if (is_vfio_driver(driver)) directory(path + "/vfio-dev/vfio0");
  }
  int open(const char* path, int /*flags*/) override {
    const std::string text(path);
    return group_fd_base + std::stoi(text.substr(text.rfind('/') + 1));
  }
  int close(int /*fd*/) override { return 0; }
  int ioctl(int /*fd*/, unsigned long request, void* argument) override {
    if (request != VFIO_GROUP_GET_STATUS) return -ENOTTY;
    static_cast<vfio_group_status*>(argument)->flags = VFIO_GROUP_FLAGS_VIABLE;
    return 0;
  }
};

// The kernel's answers for a device, and a record of its requests.
struct Script {
  std::vector<vfio_pci_dependent_device> devices;
  std::uint32_t flags = 0;
  std::vector<int> info_results;  // of the first calls; later calls return the real answer
  std::optional<std::uint32_t> count;
  int reset_result = 0;
  int asked = 0;
  std::vector<std::vector<int>> resets;  // the group fds of each
};

class ScriptedIo final : public DeviceIo {
 public:
  ScriptedIo(BusKernel& kernel, std::string name, const Group* group, Script& script)
      : kernel_(kernel), name_(std::move(name)), group_(group), script_(script) {}

  [[nodiscard]] const std::string& name() const override { return name_; }
  int get_info(vfio_device_info& info) override {
    info.flags = pci ? VFIO_DEVICE_FLAGS_PCI : 0;
    return 0;
  }
  int get_region_info(vfio_region_info& /*info*/) override { return -EINVAL; }
  int get_irq_info(vfio_irq_info& /*info*/) override { return -EINVAL; }
  int set_irqs(vfio_irq_set& /*irqs*/) override { return -EINVAL; }
  int feature(vfio_device_feature& /*feature*/) override { return -ENOTTY; }
  int reset() override { return -EINVAL; }
  int get_pci_hot_reset_info(vfio_pci_hot_reset_info& info) override {
    const auto call = static_cast<std::size_t>(script_.asked++);
    if (call < script_.info_results.size() && script_.info_results[call] < 0) {
      if (script_.count) info.count = *script_.count;
      return script_.info_results[call];
    }
    const std::size_t room = (info.argsz - sizeof info) / sizeof(vfio_pci_dependent_device);
    info.count = script_.count.value_or(static_cast<std::uint32_t>(script_.devices.size()));
    if (script_.devices.size() > room) return -ENOSPC;
    info.flags = script_.flags;
    std::copy(script_.devices.begin(), script_.devices.end(), info.devices);
    return 0;
  }
  int pci_hot_reset(vfio_pci_hot_reset& reset) override {
    EXPECT_EQ(reset.argsz, sizeof reset + reset.count * sizeof(std::int32_t));
    EXPECT_EQ(reset.flags, 0U);
    script_.resets.emplace_back(reset.group_fds, reset.group_fds + reset.count);
    return script_.reset_result;
  }
  [[nodiscard]] const Group* group() const override { return group_; }
  ssize_t read(void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) override { return -EIO; }
  ssize_t write(const void* /*buffer*/, std::size_t /*length*/, std::uint64_t /*offset*/) override { return -EIO; }
  std::intptr_t mmap(void* /*address*/, std::size_t /*length*/, int /*protection*/, int /*flags*/,
                     std::uint64_t /*offset*/) override {
    return -EINVAL;
  }
  Kernel& kernel() override { return kernel_; }
  Result<void> close() override { return {}; }

  bool pci = true;

 private:
  BusKernel& kernel_;
  std::string name_;
  const Group* group_;
  Script& script_;
};

vfio_pci_dependent_device dependent(std::uint8_t device, std::uint8_t function, std::uint32_t id) {
  vfio_pci_dependent_device made{};
  made.group_id = id;
  made.bus = 2;
  made.devfn = static_cast<std::uint8_t>(device << 3 | function);
  return made;
}

// Three functions below one port: two in group 8, one in group 9.
class ResetSetTest : public ::testing::Test {
 protected:
  ResetSetTest() {
    for (const char* name : {"0000:02:00.0", "0000:02:00.1"}) kernel_.add(name, "vfio-pci", 8);
    kernel_.add("0000:02:01.0", "vfio-pci", 9);
    script_.devices = {dependent(0, 0, 8), dependent(0, 1, 8), dependent(1, 0, 9)};
  }
  // Answers as the kernel does for a device opened by its cdev.
  void by_device_ids(std::vector<std::uint32_t> ids) {
    script_.flags = VFIO_PCI_HOT_RESET_FLAG_DEV_ID;
    for (std::size_t i = 0; i < ids.size(); ++i) script_.devices[i].devid = ids[i];
  }
  Device open(const std::string& name, std::optional<std::uint32_t> group) {
    const Group* opened = nullptr;
    if (group) {
      const auto found = groups_.try_emplace(*group, Group::open(kernel_, GroupId{*group}, {.name = name}).value());
      opened = &found.first->second;
    }
    return Device::open(std::make_unique<ScriptedIo>(kernel_, name, opened, script_), nullptr).value();
  }
  static std::vector<std::string> blockers(const ResetSet& set) {
    std::vector<std::string> texts;
    for (const ResetMember& member : set.members()) texts.push_back(member.blocker);
    return texts;
  }
  // Expects that reset() refuses before it asks the kernel. Returns the message.
  std::string refusal(const ResetSet& set) {
    EXPECT_FALSE(set.complete());
    const auto refused = set.reset();
    EXPECT_FALSE(refused);
    EXPECT_TRUE(script_.resets.empty()) << "the kernel was asked";
    if (refused) return "";
    EXPECT_EQ(refused.error().code(), EPERM);
    return refused.error().message();
  }

  BusKernel kernel_;
  std::map<std::uint32_t, Group> groups_;
  Script script_;
};

TEST_F(ResetSetTest, IsCompleteWhereEveryGroupIsLentAndGivesEachGroupOnce) {
  const Device device = open("0000:02:00.0", 8);
  const Device twin = open("0000:02:00.1", 8);
  const Device other = open("0000:02:01.0", 9);
  const std::array<const Device*, 3> also_owned = {&twin, &other, &device};
  const auto set = ResetSet::of(device, also_owned);
  ASSERT_TRUE(set) << set.error().message();
  EXPECT_TRUE(set->complete());
  ASSERT_EQ(set->members().size(), 3U);
  EXPECT_EQ(to_string(set->members()[2].address), "0000:02:01.0");
  EXPECT_EQ(set->members()[2].group, GroupId{9});
  EXPECT_EQ(set->members()[2].driver, "vfio-pci");
  ASSERT_TRUE(set->reset());
  ASSERT_EQ(script_.resets.size(), 1U);
  EXPECT_THAT(script_.resets[0], ElementsAre(108, 109));
}

TEST_F(ResetSetTest, AMemberThatIsNotOpenedIsOursThroughItsGroup) {
  script_.devices.pop_back();
  const Device device = open("0000:02:00.0", 8);
  const auto set = ResetSet::of(device).value();
  EXPECT_TRUE(set.complete());
  ASSERT_TRUE(set.reset());
  EXPECT_THAT(script_.resets, ElementsAre(ElementsAre(108)));
}

TEST_F(ResetSetTest, AGroupOfNoMemberIsNotGivenBecauseTheKernelTakesNoMoreThanThereAreDevices) {
  script_.devices = {dependent(0, 0, 8)};
  const Device device = open("0000:02:00.0", 8);
  const Device elsewhere = open("0000:02:01.0", 9);
  const std::array<const Device*, 1> also_owned = {&elsewhere};
  ASSERT_TRUE(ResetSet::of(device, also_owned).value().reset());
  EXPECT_THAT(script_.resets, ElementsAre(ElementsAre(108)));
}

TEST_F(ResetSetTest, EveryMissingMemberIsNamedWithWhatIsInTheWay) {
  kernel_.add("0000:02:01.1", "nvme", 10);
  kernel_.add("0000:02:01.2", "", 8);  // in our group, but the kernel would refuse
  kernel_.add("0000:02:01.3", "pcieport", 11);
  for (const auto& [function, group] : std::map<std::uint8_t, std::uint32_t>{{1, 10}, {2, 8}, {3, 11}, {4, 12}})
    script_.devices.push_back(dependent(1, function, group));
  const Device device = open("0000:02:00.0", 8);
  const auto set = ResetSet::of(device).value();
  EXPECT_THAT(blockers(set), ElementsAre("", "", "bound to vfio-pci, not attached here", "bound to nvme",
                                         "bound to no driver", "bound to pcieport", "no longer there"));
  EXPECT_THAT(
      refusal(set),
      AllOf(HasSubstr("0000:02:01.0 (bound to vfio-pci, not attached here)"), HasSubstr("0000:02:01.1 (bound to nvme)"),
            HasSubstr("0000:02:01.2 (bound to no driver)"), HasSubstr("0000:02:01.3 (bound to pcieport)"),
            HasSubstr("spare 0000:02:01.1, bind it"), HasSubstr("spare 0000:02:01.2, bind it"),
            HasSubstr("attach 0000:02:01.0 in this process too"), HasSubstr("no VFIO driver supports the bridge"),
            Not(HasSubstr("spare 0000:02:01.3")), Not(HasSubstr("0000:02:00.1"))));
}

TEST_F(ResetSetTest, ThePhysicalFunctionOfADeviceIsNotToBeTakenForIt) {
  kernel_.add("0000:02:01.1", "nvme", 10);
  kernel_.add("0000:02:01.2", "ixgbe", 11);
  kernel_.link("/sys/bus/pci/devices/0000:02:00.0/physfn", "../0000:02:01.2");
  for (const auto& [function, group] : std::map<std::uint8_t, std::uint32_t>{{1, 10}, {2, 11}})
    script_.devices.push_back(dependent(1, function, group));
  const Device device = open("0000:02:00.0", 8);
  EXPECT_THAT(refusal(ResetSet::of(device).value()),
              AllOf(HasSubstr("0000:02:01.2 must keep its driver"), Not(HasSubstr("VFIO driver"))));
}

TEST_F(ResetSetTest, OfACdevIsWhatTheKernelSaysOfItsIommufdAndGivesNoGroup) {
  by_device_ids({1, owned_through_group, 3});
  const Device device = open("0000:02:00.0", {});
  const auto set = ResetSet::of(device).value();
  ASSERT_TRUE(set.complete());
  EXPECT_EQ(set.members()[0].device_id, 1U);
  EXPECT_FALSE(set.members()[1].device_id);
  EXPECT_EQ(set.members()[1].group, GroupId{8}) << "from sysfs";
  ASSERT_TRUE(set.reset());
  ASSERT_EQ(script_.resets.size(), 1U);
  EXPECT_TRUE(script_.resets[0].empty());
}

TEST_F(ResetSetTest, OfACdevIsNotCompleteWhereAnotherIommufdHasAMember) {
  by_device_ids({1, owned_through_group, not_owned});
  const Device device = open("0000:02:00.0", {});
  EXPECT_THAT(refusal(ResetSet::of(device).value()), HasSubstr("0000:02:01.0 (bound to vfio-pci, not attached here)"));
}

TEST_F(ResetSetTest, ALentDeviceThatIsDetachedProvesNothingAnyMore) {
  const Device device = open("0000:02:00.0", 8);
  Device other = open("0000:02:01.0", 9);
  const std::array<const Device*, 1> also_owned = {&other};
  const auto set = ResetSet::of(device, also_owned).value();
  EXPECT_TRUE(set.complete());
  ASSERT_TRUE(other.detach());
  EXPECT_FALSE(ResetSet::of(device, also_owned).value().complete());
  script_.reset_result = -EINVAL;
  EXPECT_THAT(set.reset().error().message(), AllOf(HasSubstr("has changed"), HasSubstr("read the set again")));
  EXPECT_THAT(script_.resets, ElementsAre(ElementsAre(108)));
}

TEST_F(ResetSetTest, ADeviceThatIsDetachedIsRefused) {
  Device device = open("0000:02:00.0", 8);
  script_.devices.pop_back();
  const auto set = ResetSet::of(device).value();
  ASSERT_TRUE(device.detach());
  EXPECT_EQ(set.reset().error().code(), EBADF);
  EXPECT_EQ(ResetSet::of(device).error().code(), EBADF);
  EXPECT_TRUE(script_.resets.empty());
}

TEST_F(ResetSetTest, TheDomainThatTheKernelCutsOffIsTheDevicesOwn) {
  kernel_.add("10000:02:00.0", "vfio-pci", 8);
  script_.devices = {dependent(0, 0, 8)};
  const Device device = open("10000:02:00.0", 8);
  EXPECT_EQ(to_string(ResetSet::of(device).value().members()[0].address), "10000:02:00.0");
}

TEST_F(ResetSetTest, ItsAnswerGrowsUntilItFits) {
  script_.devices.clear();
  for (std::uint8_t device = 0; device < 32; ++device) {
    for (std::uint8_t function = 0; function < 8; ++function) script_.devices.push_back(dependent(device, function, 8));
  }
  const Device device = open("0000:02:00.0", 8);
  EXPECT_EQ(ResetSet::of(device).value().members().size(), 256U);
  EXPECT_EQ(script_.asked, 2);
}

TEST_F(ResetSetTest, IsAskedForAgainWhenADeviceComesMeanwhile) {
  script_.info_results = {-ENOSPC, -EAGAIN, -ENOSPC};
  script_.count = 2;
  script_.devices.pop_back();
  const Device device = open("0000:02:00.0", 8);
  EXPECT_EQ(ResetSet::of(device).value().members().size(), 2U);
  EXPECT_EQ(script_.asked, 4);
}

TEST_F(ResetSetTest, IsNotAskedForForEver) {
  const Device device = open("0000:02:00.0", 8);
  for (const int code : {EAGAIN, ENOSPC}) {
    script_.asked = 0;
    script_.info_results.assign(1000, -code);
    script_.count = 3;
    const auto set = ResetSet::of(device);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code(), code);
    EXPECT_THAT(set.error().message(), HasSubstr("try again"));
    EXPECT_LT(script_.asked, 100);
  }
}

TEST_F(ResetSetTest, AnAnswerThatMakesNoSenseIsAnError) {
  const Device device = open("0000:02:00.0", 8);
  script_.devices = {dependent(0, 0, 8)};
  for (const std::uint32_t count : {0U, 2U, 1000U, 5'000'000U, ~0U}) {
    script_.count = count;
    script_.info_results.clear();
    EXPECT_EQ(ResetSet::of(device).error().code(), EPROTO) << count << " devices in room for one";
  }
  for (const std::uint32_t count : {0U, 5'000'000U, ~0U}) {
    script_.count = count;
    script_.info_results.assign(1000, -ENOSPC);
    EXPECT_EQ(ResetSet::of(device).error().code(), EPROTO) << "no space for " << count;
  }
}

TEST_F(ResetSetTest, WhatTheKernelCannotTellIsExplained) {
  const Device device = open("0000:02:00.0", 8);
  const std::map<int, std::string> reasons = {{ENODEV, "root bus"}, {EPERM, "no IOMMU group"}, {ENOMEM, "ENOMEM"}};
  for (const auto& [code, reason] : reasons) {
    script_.info_results.assign(1, -code);
    script_.asked = 0;
    const auto set = ResetSet::of(device);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error().code(), code);
    EXPECT_EQ(set.error().operation(), "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO");
    EXPECT_THAT(set.error().message(), AllOf(HasSubstr(reason), HasSubstr("0000:02:00.0")));
  }
}

TEST_F(ResetSetTest, AResetThatFailsIsExplained) {
  script_.devices.pop_back();
  const Device device = open("0000:02:00.0", 8);
  const auto set = ResetSet::of(device).value();
  const std::map<int, std::string> reasons = {{ENODEV, "has changed"},
                                              {EBUSY, "being accessed"},
                                              {EAGAIN, "try again"},
                                              {ENOTTY, "did not come back in time"},
                                              {EIO, "EIO"}};
  for (const auto& [code, reason] : reasons) {
    script_.reset_result = -code;
    const auto done = set.reset();
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code(), code);
    EXPECT_EQ(done.error().operation(), "VFIO_DEVICE_PCI_HOT_RESET");
    EXPECT_THAT(done.error().message(), AllOf(HasSubstr(reason), HasSubstr("0000:02:00.0")));
  }
}

TEST_F(ResetSetTest, ADeviceThatIsNotPciHasNone) {
  auto io = std::make_unique<ScriptedIo>(kernel_, "10000000.ethernet", nullptr, script_);
  io->pci = false;
  const Device device = Device::open(std::move(io), nullptr).value();
  EXPECT_EQ(ResetSet::of(device).error().code(), EINVAL);
  EXPECT_EQ(script_.asked, 0);
}

TEST_F(ResetSetTest, NeedsNoFdOfTheKernel) { EXPECT_EQ(open("0000:02:00.0", 8).fd(), -1); }

}  // namespace reset_set_test
}  // namespace postern
