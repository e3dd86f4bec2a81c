// SPDX-License-Identifier: Apache-2.0
// The host layer's reading of sysfs and /proc, on a file tree in memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <postern/binding.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_function.hpp>

#include "support/tree_kernel.hpp"

namespace postern {
namespace host_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PciAddress, IsReadWithAndWithoutADomain) {
  EXPECT_EQ(to_string(PciAddress::parse("0000:00:01.0").value()), "0000:00:01.0");
  EXPECT_EQ(to_string(PciAddress::parse("01:1f.7").value()), "0000:01:1f.7");
  EXPECT_EQ(to_string(PciAddress::parse("10000:e1:00.0").value()), "10000:e1:00.0");
}

TEST(PciAddress, OfAnotherFormIsRefusedWithTheFormThatIsExpected) {
  for (const char* text : {"", ":", "0", "00:01", "00:01.8", "00:20.0", "0000:00:01.0 ", "xx:00.0", "00:01.0.0",
                           "000:01.0", "-1:00.0", "0000:00:01:0", "123456789:00:00.0"}) {
    auto parsed = PciAddress::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_EQ(parsed.error().code(), EINVAL);
    EXPECT_THAT(parsed.error().message(), HasSubstr("0000:00:01.0")) << text;
  }
}

// A host with an NVMe disk and, in the same group, a network card.
class SmallHost : public ::testing::Test {
 protected:
  SmallHost() {
    add("0000:00:01.0", "nvme");
    add("0000:00:02.0", "e1000");
    kernel.directory("/sys/bus/pci/drivers/vfio-pci");
    kernel.directory("/sys/bus/pci/drivers/nvme");
  }
  void add(const std::string& name, const std::string& driver) {
    const std::string path = "/sys/bus/pci/devices/" + name;
    const std::string member = "/sys/kernel/iommu_groups/7/devices/" + name;
    for (const std::string& root : {path, member}) {
      kernel.link(root + "/driver", "../../../../bus/pci/drivers/" + driver);
      kernel.link(root + "/iommu_group", "../../../kernel/iommu_groups/7");
      kernel.link(root + "/subsystem", "../../../bus/pci");
    }
    kernel.file(path + "/vendor", "0x1b36\n");
    kernel.file(path + "/device", "0x0010\n");
    kernel.file(path + "/class", "0x010802\n");
    kernel.file(path + "/revision", "0x02\n");
    kernel.file(path + "/numa_node", "-1\n");
    kernel.file(path + "/reset_method", "flr bus\n");
    kernel.file(path + "/driver_override", "(null)\n");
  }
  HostDevice disk() { return find_host_device(kernel, "pci", "0000:00:01.0").value(); }

  test::TreeKernel kernel;
};

TEST_F(SmallHost, AFunctionHasItsIdsDriverGroupAndResetMethods) {
  const auto function = find_pci_function(kernel, {.bus = 0, .device = 1}).value();
  EXPECT_EQ(function.vendor_id, 0x1b36);
  EXPECT_EQ(function.device_id, 0x0010);
  EXPECT_EQ(function.class_code, 0x010802U);
  EXPECT_EQ(function.revision, 2);
  EXPECT_EQ(function.host.driver, "nvme");
  EXPECT_EQ(function.host.iommu_group, GroupId{7});
  EXPECT_FALSE(function.host.numa_node) << "-1 is how the kernel says that there is none";
  EXPECT_FALSE(function.host.cdev);
  EXPECT_THAT(function.reset_methods, ElementsAre("flr", "bus"));
}

TEST_F(SmallHost, FunctionsAreListedByAddress) {
  const auto functions = list_pci_functions(kernel).value();
  ASSERT_EQ(functions.size(), 2U);
  EXPECT_EQ(functions[0].host.name, "0000:00:01.0");
  EXPECT_EQ(functions[1].host.name, "0000:00:02.0");
}

TEST_F(SmallHost, ADeviceThatIsNotThereIsNamedWithTheWayToListThem) {
  auto missing = find_pci_function(kernel, {.bus = 9});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ENOENT) << "what stat(2) returned";
  EXPECT_EQ(missing.error().kind(), ErrorKind::not_found);
  EXPECT_THAT(missing.error().message(), HasSubstr("0000:09:00.0"));
  EXPECT_TRUE(missing.error().remedies().contains(RemedyCode::list_devices));
}

TEST_F(SmallHost, ACdevWithoutADevFileHasNoNumber) {
  kernel.directory("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio3");
  ASSERT_TRUE(disk().cdev);
  EXPECT_EQ(disk().cdev->path, "/dev/vfio/devices/vfio3");
  EXPECT_FALSE(disk().cdev->number);
  kernel.file("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio3/dev", "241:3\n");
  EXPECT_TRUE(disk().cdev->number);
}

TEST_F(SmallHost, AGroupIsNotViableWhileAnotherDriverHoldsAMemberAndNamesIt) {
  const auto group = find_iommu_group(kernel, GroupId{7}).value();
  EXPECT_EQ(group.path, "/dev/vfio/7");
  ASSERT_EQ(group.members.size(), 2U);
  EXPECT_FALSE(group.viable());
  ASSERT_EQ(group.blockers().size(), 2U);
  EXPECT_EQ(group.blockers()[1]->name, "0000:00:02.0");
  EXPECT_EQ(group.blockers()[1]->driver, "e1000");
}

TEST_F(SmallHost, MembersOfVfioPciStubAndPortDriversOrOfNoneDoNotStandInTheWay) {
  IommuGroup group;
  for (const char* driver : {"vfio-pci", "mlx5-vfio-pci", "pci-stub", "pcieport"}) {
    group.members.push_back({.name = driver, .bus = "pci", .driver = driver, .is_vfio = is_vfio_driver(driver)});
  }
  group.members.push_back({.name = "unbound", .bus = "pci"});
  group.members.push_back({.name = "vgpu", .bus = "pci", .driver = "nvidia", .is_vfio = true});
  EXPECT_TRUE(group.viable());
  group.members.push_back({.name = "other", .bus = "pci", .driver = "my-vfio"});
  EXPECT_FALSE(group.viable()) << "the name alone does not tell";
}

TEST_F(SmallHost, TheAdviceOnAGroupNamesTheMembersToBind) {
  IommuGroup group{.id = GroupId{7}, .path = {}, .members = {}};
  for (const char* const each : {"0000:02:00.0", "0000:02:00.1"}) {
    group.members.push_back({.name = each, .bus = "pci", .sysfs_path = {}, .driver = "nvme"});
  }
  EXPECT_EQ(advise_on_group(kernel, group, "0000:02:00.0").remedy,
            Remedies({{.code = RemedyCode::bind_whole_group, .arguments = {"0000:02:00.0"}},
                      {.code = RemedyCode::bind_to_vfio_driver, .arguments = {"0000:02:00.1"}}}));
}

TEST_F(SmallHost, AGroupThatIsNotThereIsNamed) {
  auto group = find_iommu_group(kernel, GroupId{99});
  ASSERT_FALSE(group);
  EXPECT_EQ(group.error().code(), ENOENT);
  EXPECT_THAT(group.error().message(), HasSubstr("IOMMU group 99"));
}

TEST_F(SmallHost, ADeviceIsVfiosBySysfsAndNotByTheNameOfItsDriver) {
  EXPECT_FALSE(disk().is_vfio);
  kernel.directory("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio3");
  EXPECT_TRUE(disk().is_vfio) << "a vendor's driver may serve VFIO, too";
  kernel.remove("/sys/bus/pci/devices/0000:00:01.0/vfio-dev/vfio3");
  kernel.link("/sys/bus/pci/devices/0000:00:01.0/driver", "../../../bus/pci/drivers/my-vfio-pci");
  EXPECT_FALSE(disk().is_vfio) << "VFIO does not know it";
}

TEST_F(SmallHost, BeforeLinux61ADeviceIsVfiosByTheNodeOfItsGroupAndTheName) {
  kernel.link("/sys/bus/pci/devices/0000:00:01.0/driver", "../../../bus/pci/drivers/vfio-pci");
  EXPECT_FALSE(disk().is_vfio);
  kernel.directory("/sys/class/vfio/7");
  EXPECT_TRUE(disk().is_vfio);
  EXPECT_FALSE(find_host_device(kernel, "pci", "0000:00:02.0")->is_vfio) << "the node is there for the other member";
  kernel.directory("/sys/class/vfio-dev");
  EXPECT_FALSE(disk().is_vfio) << "this kernel would show a vfio-dev of it";
}

TEST_F(SmallHost, ANameThatLeadsElsewhereIsNoDevice) {
  for (const char* name : {"", ".", "..", "../../../class/net", "0000:00:01.0/driver", "a\nb"}) {
    const auto found = find_host_device(kernel, "pci", name);
    ASSERT_FALSE(found) << name;
    EXPECT_EQ(found.error().code(), EINVAL) << name;
  }
}

TEST(Binding, StaysWhereItIsWhenTheDriverThatItCameFromIsNotLoaded) {
  test::TreeKernel kernel;
  const std::string path = "/sys/bus/pci/devices/0000:00:01.0";
  kernel.link(path + "/driver", "../../../bus/pci/drivers/vfio-pci");
  kernel.file(path + "/driver/unbind", "");
  kernel.file(path + "/driver_override", "vfio-pci\n");
  const auto restored =
      restore_binding(kernel, {.bus = "pci", .device = "0000:00:01.0", .driver = "nvme", .driver_override = {}});
  ASSERT_FALSE(restored);
  EXPECT_THAT(restored.error().message(), HasSubstr("modprobe nvme"));
  std::string text;
  EXPECT_EQ(kernel.read_file(path + "/driver/unbind", text), 0);
  EXPECT_EQ(text, "") << "it was not taken from vfio-pci";
  EXPECT_EQ(kernel.read_file(path + "/driver_override", text), 0);
  EXPECT_EQ(text, "vfio-pci\n");
}

TEST(Binding, SaysThatSysfsIsReadOnlyWhereItIs) {
  class ReadOnly : public test::TreeKernel {
    int write_file(const std::string& /*path*/, const std::string& /*contents*/) override { return -EROFS; }
  } kernel;
  const std::string path = "/sys/bus/pci/devices/0000:00:01.0";
  kernel.file(path + "/driver_override", "(null)\n");
  kernel.directory("/sys/bus/pci/drivers/vfio-pci");
  const auto bound = bind_to_driver(kernel, find_host_device(kernel, "pci", "0000:00:01.0").value(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), EROFS);
  EXPECT_THAT(bound.error().message(), HasSubstr("read-only"));
}

TEST(LockedMemory, IsReadFromProc) {
  test::TreeKernel kernel;
  kernel.file("/proc/self/limits",
              "Limit                     Soft Limit           Hard Limit           Units\n"
              "Max locked memory         8388608              8388608              bytes\n");
  kernel.file("/proc/self/status", "Name:\tx\nVmPin:\t     128 kB\nVmLck:\t      64 kB\nCapEff:\t0000000000000000\n");
  const auto memory = LockedMemory::read(kernel).value();
  EXPECT_EQ(memory.limit, 8388608U);
  EXPECT_FALSE(memory.exempt);
  EXPECT_EQ(memory.locked, 64U << 10);
  EXPECT_EQ(memory.pinned, 128U << 10);
  EXPECT_TRUE(memory.allows(8388608 - (64 << 10), LockedMemoryCounter::process));
  EXPECT_FALSE(memory.allows(8388608 - (64 << 10) + 1, LockedMemoryCounter::process));
  EXPECT_TRUE(memory.allows(8388608 - (128 << 10), LockedMemoryCounter::user));
  EXPECT_FALSE(memory.allows(8388608 - (128 << 10) + 1, LockedMemoryCounter::user));
  EXPECT_FALSE(memory.allows(~std::uint64_t{0}, LockedMemoryCounter::user));
  const auto limit_for = [&](std::uint64_t bytes, LockedMemoryCounter counter) {
    return memory.raise_limit(bytes, counter).begin()->arguments.front();
  };
  EXPECT_EQ(limit_for(1025, LockedMemoryCounter::process), "66") << "whole KiB";
  EXPECT_EQ(limit_for(1024, LockedMemoryCounter::user), "129");
  EXPECT_EQ(limit_for(~std::uint64_t{0}, LockedMemoryCounter::user), "18014398509481984");
}

// Names are untrusted: a process chooses its own, and those of the files it maps.
TEST(LockedMemory, IsNotReadFromTheNameOfTheProcess) {
  test::TreeKernel kernel;
  kernel.file("/proc/self/limits", "Max locked memory         8388608              8388608              bytes\n");
  kernel.file("/proc/self/status",
              "Name:\tVmPin:\t999999\\nVmLck:\t7\nUmask:\t0022\nVmLck:\t      64 kB\nVmPin:\t     128 kB\n"
              "CapEff:\t0000000000000000\n");
  const auto memory = LockedMemory::read(kernel).value();
  EXPECT_EQ(memory.pinned, 128U << 10);
  EXPECT_EQ(memory.locked, 64U << 10);
  kernel.file("/proc/self/status", "Name:\tCapEff:\tffffffff\nUmask:\t0022\nCapEff:\t0000000000000000\n");
  EXPECT_FALSE(LockedMemory::read(kernel)->exempt);
}

TEST(BackingPageSize, IsNotReadFromTheNameOfAFile) {
  test::TreeKernel kernel;
  kernel.file("/proc/self/smaps",
              "10000000-10200000 rw-p 00000000 00:00 0 /tmp/KernelPageSize: 8 kB\nSize: 2048 kB\n"
              "KernelPageSize:        4 kB\nVmFlags: rd wr \n");
  EXPECT_EQ(backing_page_size(kernel, reinterpret_cast<const void*>(0x10000000)).value(), 4096U);
}

TEST(BackingPageSize, IsThatOfTheMappingThatHoldsTheAddress) {
  test::TreeKernel kernel;
  kernel.file("/proc/self/smaps",
              "10000000-10200000 rw-p 00000000 00:00 0 \nSize: 2048 kB\nKernelPageSize:        4 kB\nVmFlags: rd wr \n"
              "20000000-20400000 rw-p 00000000 00:0f 7 /anon_hugepage (deleted)\nKernelPageSize:     2048 kB\n");
  const auto size = [&](std::uintptr_t address) {
    return backing_page_size(kernel, reinterpret_cast<const void*>(address));
  };
  EXPECT_EQ(size(0x10000000).value(), 4096U);
  EXPECT_EQ(size(0x101fffff).value(), 4096U);
  EXPECT_EQ(size(0x20000000).value(), 2U << 20);
  EXPECT_EQ(size(0x10200000).error().code(), EFAULT);
}

TEST(LockedMemory, IsNotLimitedForUnlimitedOrForCapIpcLock) {
  test::TreeKernel kernel;
  kernel.file("/proc/self/limits", "Max locked memory         unlimited            unlimited            bytes\n");
  kernel.file("/proc/self/status", "CapEff:\t0000000000004000\n");
  const auto memory = LockedMemory::read(kernel).value();
  EXPECT_FALSE(memory.limit);
  EXPECT_TRUE(memory.exempt);
  EXPECT_TRUE(memory.allows(~std::uint64_t{0}, LockedMemoryCounter::user));
}

}  // namespace host_test
}  // namespace postern
