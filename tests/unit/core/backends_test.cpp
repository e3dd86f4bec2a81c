// SPDX-License-Identifier: Apache-2.0
// Choosing a backend by name or automatically, and every reason for a refusal, on a fake kernel with a file tree.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <set>

#include "support/tree_kernel.hpp"

namespace postern {
namespace backends_test {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A file tree with a container node that can be opened and reports extensions.
class ContainerKernel : public test::TreeKernel {
 public:
  std::set<std::uintptr_t> extensions = {VFIO_TYPE1v2_IOMMU};

  int open(const char* path, int flags) override {
    const int result = TreeKernel::open(path, flags);
    return result == -ENOSYS && std::string_view(path) == "/dev/vfio/vfio" ? 3 : result;
  }
  int close(int /*fd*/) override { return 0; }
  int ioctl(int /*fd*/, unsigned long request, void* argument) override {
    if (request == VFIO_GET_API_VERSION) return VFIO_API_VERSION;
    return request == VFIO_CHECK_EXTENSION && extensions.count(reinterpret_cast<std::uintptr_t>(argument)) != 0 ? 1 : 0;
  }
};

class Choosing : public ::testing::Test {
 protected:
  Choosing() {
    for (const char* path : {"/dev/iommu", "/dev/vfio/vfio", "/dev/vfio/7", "/dev/vfio/devices/vfio0"}) {
      kernel.node(path, {.mode = S_IFCHR | 0660, .owner = 0, .group = 0, .device = 0});
    }
    kernel.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
    device.name = "0000:00:01.0";
    device.bus = "pci";
    device.driver = "vfio-pci";
    device.is_vfio = true;
    device.iommu_group = GroupId{7};
    device.cdev = VfioCdev{.name = "vfio0", .path = "/dev/vfio/devices/vfio0", .number = dev_t{0}};
  }
  std::string refusal(std::string_view backend, int code) {
    auto chosen = choose_backend(kernel, backend, device);
    if (chosen) return "chosen: " + std::string((*chosen)->name);
    EXPECT_EQ(chosen.error().code(), code);
    return chosen.error().message();
  }

  ContainerKernel kernel;
  HostDevice device;
};

TEST_F(Choosing, AutoTakesTheFirstThatCanBeUsed) {
  EXPECT_EQ(choose_backend(kernel, "auto", device).value()->name, backends().front()->name);
  kernel.remove("/dev/iommu");
  EXPECT_EQ(choose_backend(kernel, "auto", device).value()->name, "type1");
}

TEST_F(Choosing, ANameThatNoBackendHasIsInvalidAndTheNamesAreListed) {
  EXPECT_THAT(refusal("type9", EINVAL), AllOf(HasSubstr("type9"), HasSubstr("iommufd, type1")));
}

TEST_F(Choosing, ABackendThatIsNotAvailableHereSaysWhy) {
  kernel.remove("/dev/iommu");
  EXPECT_THAT(refusal("iommufd", ENOENT), AllOf(HasSubstr("/dev/iommu does not exist"), HasSubstr("modprobe iommufd")));
}

TEST_F(Choosing, TheContainersNodeAloneIsNotEnoughWithoutTheModuleThatKnowsTheIommu) {
  kernel.extensions.clear();
  EXPECT_THAT(refusal("type1", ENODEV), AllOf(HasSubstr("VFIO_TYPE1v2_IOMMU"), HasSubstr("modprobe vfio_iommu_type1")));
}

TEST_F(Choosing, AModuleForAnotherProcessorIsNotToBeLoaded) {
  if (!find_backend("spapr")) GTEST_SKIP() << "this build leaves it out";
  kernel.extensions.clear();
  const std::string on_pc = refusal("spapr", ENODEV);
  EXPECT_THAT(on_pc, AllOf(HasSubstr("spapr is not for this processor"), Not(HasSubstr("modprobe"))));
  kernel.file("/proc/cpuinfo", "processor\t: 0\nplatform\t: pSeries\n");
  EXPECT_THAT(refusal("type1", ENODEV),
              AllOf(HasSubstr("type1 is not for this processor, which has spapr"), Not(HasSubstr("modprobe"))));
  EXPECT_THAT(refusal("spapr", ENODEV), HasSubstr("modprobe vfio_iommu_spapr_tce"));
}

TEST_F(Choosing, AVersionThatABackendDoesNotHaveIsRefused) {
  kernel.extensions = {VFIO_TYPE1v2_IOMMU};
  const Backend* type1 = find_backend("type1").value();
  EXPECT_TRUE(Container::open(kernel, *type1, {.version = 2}));
  EXPECT_EQ(Container::open(kernel, *type1, {.version = 1}).error().code(), ENODEV) << "the kernel has it not";
  EXPECT_EQ(Container::open(kernel, *type1, {.version = 3}).error().code(), EINVAL) << "nobody has it";
  EXPECT_EQ(Container::open(kernel, *find_backend("iommufd").value(), {.version = 1}).error().code(), EINVAL);
}

TEST_F(Choosing, ABackendOfThisProjectThatIsNotBuiltInIsAnotherErrorThanAnUnknownOne) {
  const auto built = [](std::string_view name) {
    return std::any_of(backends().begin(), backends().end(), [name](const Backend* b) { return b->name == name; });
  };
  for (const std::string_view name : known_backends()) {
    if (built(name)) {
      EXPECT_TRUE(find_backend(name));
    } else {
      EXPECT_EQ(find_backend(name).error().code(), ENOSYS);
    }
  }
}

TEST_F(Choosing, AutoReportsEachRefusalWhenNoneCanBeUsed) {
  device.iommu_group.reset();
  auto chosen = choose_backend(kernel, "auto", device);
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.error().code(), ENODEV);
  ASSERT_EQ(chosen.error().causes().size(), backends().size());
  for (const Error& cause : chosen.error().causes()) {
    EXPECT_THAT(cause.message(), AllOf(HasSubstr("in no IOMMU group"), HasSubstr("intel_iommu=on")));
  }
}

TEST_F(Choosing, AutoTellsACauseThatTheBackendsShareOnce) {
  sim::Kernel simulated;
  const auto attached = attach_pci(simulated, "0000:00:02.0");  // bound to nvme
  ASSERT_FALSE(attached);
  ASSERT_GT(attached.error().causes().size(), 1U);
  const std::string message = attached.error().message();
  const std::string cause = "it is bound to nvme, not to a VFIO driver";
  EXPECT_THAT(message, AllOf(HasSubstr("tried iommufd, type1"), HasSubstr(cause)));
  EXPECT_EQ(message.find(cause), message.rfind(cause)) << message;
}

TEST_F(Choosing, AutoGivesTheKindThatTheBackendsOfThisHostAgreeOn) {
  const auto kind = [&] { return choose_backend(kernel, "auto", device).error().kind(); };
  device.is_vfio = false;
  EXPECT_EQ(kind(), ErrorKind::not_bound);
  kernel.remove("/dev/iommu");
  EXPECT_EQ(kind(), ErrorKind::not_bound) << "this host has no iommufd";
  kernel.remove("/dev/vfio/vfio");
  EXPECT_EQ(kind(), ErrorKind::unavailable);
}

TEST_F(Choosing, WithoutADeviceABackendIsUsableWhereTheKernelUsesAnIommu) {
  kernel.extensions = {VFIO_TYPE1v2_IOMMU, VFIO_SPAPR_TCE_v2_IOMMU};
  for (const Backend* backend : backends()) {
    auto unused = backend->probe(kernel, nullptr);
    ASSERT_FALSE(unused) << backend->name;
    EXPECT_THAT(unused.error().message(), AllOf(HasSubstr("uses no IOMMU"), HasSubstr("intel_iommu=on")));
  }
  kernel.file("/sys/kernel/iommu_groups/7/type", "DMA");
  for (const Backend* backend : backends()) EXPECT_TRUE(backend->probe(kernel, nullptr)) << backend->name;
}

TEST_F(Choosing, ACdevWithoutADevFileIsExplained) {
  device.cdev->number.reset();
  EXPECT_THAT(refusal("iommufd", ENODEV),
              AllOf(HasSubstr("vfio-dev/vfio0 has no \"dev\" file"), HasSubstr("CONFIG_VFIO_DEVICE_CDEV")));
}

TEST_F(Choosing, ANodeThatMayNotBeOpenedIsNamedWithItsModeAndOwner) {
  kernel.access_gives("/dev/vfio/7", -EACCES);
  EXPECT_THAT(refusal("type1", EACCES), AllOf(HasSubstr("/dev/vfio/7"), HasSubstr("crw-rw---- 0:0")));
}

TEST_F(Choosing, AutoLeavesOutABackendWhoseNodeTheDeviceCgroupForbids) {
  kernel.open_gives("/dev/iommu", -EPERM);  // as a device cgroup: access(2) still succeeds
  EXPECT_THAT(refusal("iommufd", EPERM), AllOf(HasSubstr("device cgroup"), HasSubstr("/dev/iommu")));
  EXPECT_EQ(choose_backend(kernel, "auto", device).value()->name, "type1");
}

// VFIO refuses a device whose interrupts are not isolated, unless a parameter of the backend's module allows it.
class WithoutRemapping : public Choosing {
 protected:
  WithoutRemapping() {
    device.sysfs_path = "/sys/bus/pci/devices/0000:00:01.0";
    kernel.link(device.sysfs_path + "/iommu", "../../virtual/iommu/dmar0");
    kernel.link("/sys/class/iommu/dmar0/devices/0000:00:01.0", "../../../../pci0000:00/0000:00:01.0");
    kernel.file("/proc/interrupts", "            CPU0\n   2:         11   IO-APIC    2-edge      timer\n");
    kernel.file("/sys/kernel/iommu_groups/7/type", "DMA");
  }
  void accept(const std::string& module) {
    kernel.file("/sys/module/" + module + "/parameters/allow_unsafe_interrupts", "Y\n");
  }
};

TEST_F(WithoutRemapping, AutoLeavesOutABackendThatIsNotToldToAcceptThat) {
  accept("vfio_iommu_type1");
  EXPECT_EQ(choose_backend(kernel, "auto", device).value()->name, "type1");
  EXPECT_FALSE(find_backend("iommufd").value()->probe(kernel, nullptr)) << "nor can any other device use it";
  EXPECT_TRUE(find_backend("type1").value()->probe(kernel, nullptr));
  accept("iommufd");
  EXPECT_EQ(choose_backend(kernel, "auto", device).value()->name, "iommufd");
}

TEST_F(WithoutRemapping, ANamedBackendDoesNotFallBackAndSaysHowToTellIt) {
  accept("vfio_iommu_type1");
  EXPECT_THAT(refusal("iommufd", EPERM), AllOf(HasSubstr("EPERM"), HasSubstr("cannot be isolated"),
                                               HasSubstr("iommufd/parameters/allow_unsafe_interrupts")));
}

TEST_F(WithoutRemapping, TheRefusalStandsAmongTheCauses) {
  auto chosen = choose_backend(kernel, "auto", device);
  ASSERT_FALSE(chosen);
  EXPECT_EQ(chosen.error().kind(), ErrorKind::interrupts_not_isolated);
  for (const std::string module : {"iommufd", "vfio_iommu_type1"})
    EXPECT_THAT(chosen.error().message(), HasSubstr(module + "/parameters/allow_unsafe_interrupts"));
}

TEST_F(WithoutRemapping, WhatCannotBeToldRefusesNothing) {
  kernel.remove("/proc/interrupts");
  EXPECT_EQ(choose_backend(kernel, "auto", device).value()->name, "iommufd");
}

// A simulated host with a device cgroup: opening some nodes fails, while access(2) succeeds.
class ForbiddenNodes : public ::testing::Test {
 protected:
  class Nodes : public sim::FailingKernel {
   public:
    using sim::FailingKernel::FailingKernel;
    std::set<std::string> forbidden;
    int open(const char* path, int flags) override {
      return forbidden.count(path) != 0 ? -EPERM : sim::FailingKernel::open(path, flags);
    }
  };
  sim::Kernel simulated_{sim::find_host("sim").value()};
  Nodes kernel_{simulated_};
  HostDevice device_ = find_host_device(simulated_, "pci", "0000:00:01.0").value();
};

TEST_F(ForbiddenNodes, AutoGoesOnWhereTheCdevCannotBeOpened) {
  kernel_.forbidden = {device_.cdev->path};
  auto attached = attach(kernel_, device_);
  ASSERT_TRUE(attached) << attached.error().message();
  EXPECT_EQ(attached->container()->backend(), "type1");
  EXPECT_EQ(attach(kernel_, device_, {.backend = "iommufd"}).error().code(), EPERM) << "a name never falls back";
}

TEST_F(ForbiddenNodes, WhereNoBackendIsLeftEachRefusalIsToldOnce) {
  kernel_.forbidden = {device_.cdev->path, "/dev/vfio/vfio"};
  const auto refused = attach(kernel_, device_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENODEV);
  ASSERT_EQ(refused.error().causes().size(), backends().size());
  EXPECT_THAT(refused.error().causes()[0].message(), HasSubstr(device_.cdev->path));
  EXPECT_THAT(refused.error().causes()[1].message(), HasSubstr("/dev/vfio/vfio"));
  EXPECT_EQ(kernel_.open_files(), 0);
}

TEST_F(ForbiddenNodes, AGroupThatMayNotBeOpenedIsTold) {
  kernel_.forbidden = {device_.cdev->path, "/dev/vfio/" + to_string(*device_.iommu_group)};
  const auto refused = attach(kernel_, device_);
  ASSERT_FALSE(refused);
  ASSERT_EQ(refused.error().causes().size(), backends().size());
  EXPECT_THAT(refused.error().causes()[1].message(), HasSubstr("/dev/vfio/1"));
}

TEST_F(Choosing, ADeviceOfAnotherDriverIsSentToBind) {
  device.is_vfio = false;
  device.driver = "nvme";
  EXPECT_THAT(refusal("type1", ENODEV), HasSubstr("bind 0000:00:01.0 to a VFIO driver"));
  EXPECT_EQ(choose_backend(kernel, "type1", device).error().kind(), ErrorKind::not_bound);
  device.driver.reset();
  EXPECT_THAT(refusal("type1", ENODEV), HasSubstr("bound to no driver"));
}

}  // namespace backends_test
}  // namespace postern
