// SPDX-License-Identifier: Apache-2.0
// Uses of a device by this host, on a file tree in memory, with disks whose exclusive open returns a result of the
// test's choice.
#include "host/in_use.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <fcntl.h>
#include <cerrno>

#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace in_use_test {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A kernel with block devices that are not in use.
class Host : public test::TreeKernel {
 public:
  Host() {
    file("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    file("/proc/swaps", "Filename\t\t\t\tType\t\tSize\n");
    directory("/proc/100/fd");
    link("/proc/self", "100");
    add_block("nvme0n1", "pci0000:00/0000:00:03.0/0000:01:00.0/nvme/nvme0/nvme0n1", 259, 0);
    add_block("nvme0n1p1", "pci0000:00/0000:00:03.0/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p1", 259, 1);
    add_block("sda1", "pci0000:00/0000:00:1f.2/ata1/host0/block/sda/sda1", 8, 1);
  }
  void add_block(const std::string& name, const std::string& place, unsigned major, unsigned minor) {
    link("/sys/class/block/" + name, "../../devices/" + place);
    file("/sys/class/block/" + name + "/dev", std::to_string(major) + ":" + std::to_string(minor) + "\n");
    node("/dev/" + name, {.mode = S_IFBLK | 0660U, .device = makedev(major, minor)});
    opens[("/dev/" + name)] = 9;
  }
  int open(const char* path, int flags) override {
    const auto found = opens.find(path);
    if (found == opens.end()) return TreeKernel::open(path, flags);
    EXPECT_EQ(flags & (O_EXCL | O_ACCMODE), O_EXCL | O_RDONLY) << path;
    return found->second;
  }
  int close(int fd) override {
    EXPECT_EQ(fd, 9);
    return 0;
  }

  std::map<std::string, int> opens;  // results of exclusive opens
};

class InUseTest : public testing::Test {
 protected:
  InUse look() { return find_uses(host_, device_); }
  std::string uses() { return look().uses_text(); }
  std::string unknown() { return look().unknown_text(); }
  void claim(const std::string& block) { host_.opens["/dev/" + block] = -EBUSY; }

  Host host_;
  HostDevice device_{.name = "0000:01:00.0",
                     .bus = "pci",
                     .sysfs_path = "/sys/bus/pci/devices/0000:01:00.0",
                     .driver = "nvme",
                     .iommu_group = {},
                     .cdev = {},
                     .numa_node = {}};
};

TEST_F(InUseTest, AnUnclaimedDiskIsUnused) {
  EXPECT_THAT(look().uses, IsEmpty());
  EXPECT_THAT(look().unknown, IsEmpty());
  EXPECT_TRUE(require_unused(look(), device_, "bind"));
}

TEST_F(InUseTest, ThePartitionWithTheRootFileSystemIsNamedThoughItsMountDoesNotNameIt) {
  claim("nvme0n1");
  claim("nvme0n1p1");
  host_.file("/proc/self/mountinfo", "22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n");
  EXPECT_EQ(uses(), "nvme0n1p1 holds the root file system");
  const auto refused = require_unused(look(), device_, "bind");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().reason(), HasSubstr("nvme0n1p1 holds the root file system"));
  EXPECT_THAT(refused.error().remedy(), HasSubstr("\"--force\" takes the device anyway, and loses the file"));
}

TEST_F(InUseTest, AFileSystemWithANumberOfItsOwnIsFoundByItsNode) {
  claim("nvme0n1p1");
  host_.file("/proc/self/mountinfo", "30 1 0:33 /@home /home rw - btrfs /dev/nvme0n1p1 rw\n");
  EXPECT_EQ(uses(), "nvme0n1p1 is mounted on /home");
}

TEST_F(InUseTest, ADiskWhoseUserNobodyNamesIsUsedAllTheSame) {
  claim("nvme0n1");
  claim("nvme0n1p1");
  host_.file("/proc/self/mountinfo", "30 1 0:33 / /tank rw - zfs tank rw\n");
  EXPECT_THAT(uses(), HasSubstr("nvme0n1p1 cannot be opened exclusively (EBUSY)"));
  EXPECT_THAT(look().uses, testing::SizeIs(1)) << "the disk is refused for its partition";
}

TEST_F(InUseTest, SwapAndVolumesAreNamed) {
  claim("nvme0n1p1");
  host_.file("/proc/swaps", "Filename\t\t\t\tType\t\tSize\n/dev/nvme0n1p1                 partition\t4096\n");
  EXPECT_EQ(uses(), "nvme0n1p1 holds swap");
  host_.remove("/proc/swaps");
  host_.directory("/sys/class/block/nvme0n1p1/holders/dm-0");
  EXPECT_EQ(uses(), "nvme0n1p1 is part of dm-0");
  host_.file("/sys/class/block/dm-0/dm/name", "vg-home\n");
  EXPECT_EQ(uses(), "nvme0n1p1 is part of dm-0 (vg-home)");
}

TEST_F(InUseTest, ADiskThatSeveralControllersShareIsFoundThroughItsSubsystem) {
  device_.name = "0000:02:00.0";
  device_.sysfs_path = "/sys/bus/pci/devices/0000:02:00.0";
  host_.link("/sys/class/nvme-subsystem/nvme-subsys1/nvme1", "../../../pci0000:00/0000:02:00.0/nvme/nvme1");
  host_.add_block("nvme1n1", "virtual/nvme-subsystem/nvme-subsys1/nvme1n1", 259, 5);
  host_.add_block("nvme1c1n1", "pci0000:00/0000:02:00.0/nvme/nvme1/nvme1c1n1", 259, 6);
  host_.file("/sys/class/block/nvme1c1n1/hidden", "1\n");
  host_.remove("/dev/nvme1c1n1");
  EXPECT_EQ(unknown(), "") << "nobody can open a hidden path";
  EXPECT_EQ(uses(), "");
  claim("nvme1n1");
  host_.file("/proc/self/mountinfo", "30 1 259:5 / /data rw - xfs /dev/disk/by-uuid/1 rw\n");
  EXPECT_EQ(uses(), "nvme1n1 is mounted on /data");
}

TEST_F(InUseTest, ADiskThatCannotBeAskedIsNotUnused) {
  host_.opens["/dev/nvme0n1"] = -EACCES;
  EXPECT_EQ(unknown(), "nvme0n1: open /dev/nvme0n1: Permission denied");
  const auto refused = require_unused(look(), device_, "bind");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().reason(), HasSubstr("unknown whether"));
  host_.remove("/dev/nvme0n1");
  EXPECT_EQ(unknown(), "nvme0n1: open /dev/nvme0n1: No such file or directory");
  host_.node("/dev/nvme0n1", {.mode = S_IFBLK | 0660U, .device = makedev(8, 7)});
  EXPECT_EQ(unknown(), "nvme0n1: open /dev/nvme0n1: No such device") << "the node is another disk's";
}

TEST_F(InUseTest, WhatProcNamesNeedsNoRightToOpenTheDisk) {
  host_.opens["/dev/nvme0n1p1"] = -EACCES;
  host_.file("/proc/self/mountinfo", "22 1 259:1 / /home rw - ext4 /dev/nvme0n1p1 rw\n");
  EXPECT_EQ(uses(), "nvme0n1p1 is mounted on /home");
}

TEST_F(InUseTest, ADriveWithoutAMediumIsUnused) {
  host_.opens["/dev/nvme0n1"] = -ENOMEDIUM;
  EXPECT_EQ(uses() + unknown(), "");
}

TEST_F(InUseTest, ANetworkInterfaceIsUsedWhileItIsUpOrPartOfAnother) {
  const std::string eth = "/sys/class/net/eth0";
  host_.link(eth, "../../devices/pci0000:00/0000:01:00.0/net/eth0");
  host_.file(eth + "/flags", "0x1002\n");
  host_.file("/proc/net/route", "Iface\tDestination\tGateway\nwlan0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n");
  EXPECT_EQ(uses() + unknown(), "");
  host_.file(eth + "/flags", "0x1003\n");
  EXPECT_EQ(uses(), "the network interface eth0 is up");
  host_.file("/proc/net/route", "Iface\tDestination\tGateway\neth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n");
  EXPECT_EQ(uses(), "the network interface eth0 is up and has the default route");
  EXPECT_EQ(look().losses_text(), "this host's network through eth0");
  host_.file("/proc/net/route", "Iface\tDestination\tGateway\nbr0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n");
  host_.link(eth + "/master", "../br0");
  host_.link(eth + "/upper_br0", "../br0");
  EXPECT_EQ(uses(), "the network interface eth0 is up and is part of br0, which has the default route");
}

TEST_F(InUseTest, ADefaultRouteOfIpv6IsOne) {
  host_.link("/sys/class/net/eth0", "../../devices/pci0000:00/0000:01:00.0/virtio3/net/eth0");
  host_.file("/sys/class/net/eth0/flags", "0x1003\n");
  const std::string zeros(32, '0');
  host_.file("/proc/net/ipv6_route", zeros + " 00 " + zeros +
                                         " 00 fe800000000000000000000000000001 00000400 00000001 " +
                                         "00000000 00000003     eth0\n");
  EXPECT_EQ(uses(), "the network interface eth0 is up and has the default route");
}

TEST_F(InUseTest, AnInterfaceOfAnotherNetworkNamespaceIsNotUnused) {
  host_.directory(device_.sysfs_path + "/net");
  EXPECT_EQ(unknown(), "its network interface is in another network namespace");
}

TEST_F(InUseTest, APhysicalFunctionWithVirtualOnesIsUsed) {
  host_.file(device_.sysfs_path + "/sriov_numvfs", "0\n");
  EXPECT_EQ(uses(), "");
  host_.file(device_.sysfs_path + "/sriov_numvfs", "2\n");
  EXPECT_EQ(uses(), "it has 2 virtual functions enabled (sriov_numvfs)");
  EXPECT_EQ(look().losses_text(), "its 2 virtual functions and their users");
}

TEST_F(InUseTest, TheBootDisplayIsUsed) {
  host_.file(device_.sysfs_path + "/boot_vga", "1\n");
  EXPECT_EQ(uses(), "it is the boot display (boot_vga)");
  host_.file("/proc/iomem",
             "00000000-00000000 : PCI Bus 0000:00\n  00000000-00000000 : 0000:02:00.0\n    00000000-00000000 : efifb\n"
             "  00000000-00000000 : 0000:01:00.0\n    00000000-00000000 : nvme\n");
  EXPECT_EQ(uses(), "it is the boot display (boot_vga)") << "the framebuffer is another's";
  host_.file(device_.sysfs_path + "/boot_vga", "0\n");
  host_.file(
      "/proc/iomem",
      "00000000-00000000 : PCI Bus 0000:00\n  00000000-00000000 : 0000:01:00.0\n    00000000-00000000 : BOOTFB\n");
  EXPECT_EQ(uses(), "the boot framebuffer (BOOTFB) holds one of its BARs");
}

TEST_F(InUseTest, AProcessThatHoldsANodeOfTheDriverUsesTheDevice) {
  host_.link("/sys/dev/char/226:1", "../../devices/pci0000:00/0000:01:00.0/drm/card1");
  host_.file("/sys/dev/char/226:1/uevent", "MAJOR=226\nMINOR=1\nDEVNAME=dri/card1\nDEVTYPE=drm_minor\n");
  host_.link("/sys/dev/char/226:0", "../../devices/pci0000:00/0000:02:00.0/drm/card0");
  host_.file("/sys/dev/char/226:0/uevent", "DEVNAME=dri/card0\n");
  host_.link("/proc/900/fd/7", "/dev/dri/card0");
  EXPECT_EQ(uses(), "");
  host_.link("/proc/900/fd/8", "/dev/dri/card1");
  host_.file("/proc/900/comm", "Xorg\n");
  EXPECT_EQ(uses(), "Xorg (pid 900) has /dev/dri/card1 open");
  host_.link("/proc/self/ns/pid", "pid:[4026532441]");
  EXPECT_THAT(unknown(), HasSubstr("which processes have /dev/dri/card1 open: this is a PID namespace"));
}

TEST_F(InUseTest, NodesOfNvidiasDriverAreFoundThoughSysfsDoesNotShowThem) {
  device_.driver = "nvidia";
  host_.link("/proc/900/fd/7", "/dev/nvidia1");
  host_.node("/dev/nvidia0", {.mode = S_IFCHR});
  host_.node("/dev/nvidia1", {.mode = S_IFCHR});
  host_.file("/proc/900/comm", "python3\n");
  EXPECT_EQ(uses(), "python3 (pid 900) has /dev/nvidia1 open") << "any may be the device's";
  const std::string information = "/proc/driver/nvidia/gpus/0000:01:00.0/information";
  host_.file(information, "Model: \t\t RTX\nDevice Minor: \t 0\n");
  EXPECT_EQ(uses(), "");
  host_.file(information, "Model: \t\t RTX\nDevice Minor: \t 1\n");
  EXPECT_EQ(uses(), "python3 (pid 900) has /dev/nvidia1 open");
}

TEST_F(InUseTest, ItIsNotTheUseOfAnotherDevice) {
  claim("sda1");
  host_.file("/sys/bus/pci/devices/0000:02:00.0/sriov_numvfs", "2\n");
  EXPECT_EQ(uses() + unknown(), "");
  device_.name = "0000:00:1f.2";
  device_.sysfs_path = "/sys/bus/pci/devices/0000:00:1f.2";
  EXPECT_EQ(uses(), "sda1 holds the root file system");
}

}  // namespace in_use_test
}  // namespace postern::tool
