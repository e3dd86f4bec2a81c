// SPDX-License-Identifier: Apache-2.0
// Who has a device open, and what this host keeps on a disk.
#include <gtest/gtest.h>

#include <array>

#include "host/block_use.hpp"
#include "host/holders.hpp"
#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace host_use_test {

const std::array<std::string, 2> nodes = {"/dev/vfio/2", "/dev/vfio/devices/vfio0"};
constexpr PciAddress nvme{.domain = 0, .bus = 1, .device = 0, .function = 0};

// A kernel that shows the files of no other user's process.
class Secretive : public test::TreeKernel {
 public:
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return path == "/proc/1/fd" ? -EACCES : TreeKernel::list_directory(path, names);
  }
};

TEST(Holders, AreThoseWithOneOfTheNodesOpen) {
  test::TreeKernel kernel;
  kernel.link("/proc/900/fd/3", "/dev/vfio/3");
  kernel.link("/proc/1000/fd/3", "/dev/vfio/2");
  kernel.file("/proc/1000/comm", "driver\n");
  kernel.link("/proc/20/fd/0", "/dev/null");
  kernel.link("/proc/20/fd/7", "/dev/vfio/devices/vfio0");
  kernel.link("/proc/self", "30");
  kernel.file("/proc/cmdline", "quiet");
  const Holders holders = find_holders(kernel, nodes);
  EXPECT_EQ(holders.processes, (std::vector<std::string>{"a process (pid 20)", "driver (pid 1000)"}));
  EXPECT_TRUE(holders.complete);
}

TEST(Holders, AreThoseToWhomTheNodeWasRemovedToo) {
  test::TreeKernel kernel;
  kernel.link("/proc/20/fd/7", "/dev/vfio/devices/vfio0 (deleted)");
  EXPECT_EQ(find_holders(kernel, nodes).processes, (std::vector<std::string>{"a process (pid 20)"}));
}

TEST(Holders, LeaveThisProcessOut) {
  test::TreeKernel kernel;
  kernel.link("/proc/30/fd/3", "/dev/vfio/2");
  kernel.link("/proc/self", "30");
  EXPECT_TRUE(find_holders(kernel, nodes).processes.empty());
}

TEST(Holders, AreNotCompleteWhereAProcessHidesItsFiles) {
  Secretive kernel;
  kernel.directory("/proc/1/fd");
  EXPECT_FALSE(find_holders(kernel, nodes).complete);
}

TEST(ListOf, IsAsASentenceHasIt) {
  EXPECT_EQ(list_of({}), "");
  EXPECT_EQ(list_of(std::array<std::string, 1>{"a"}), "a");
  EXPECT_EQ(list_of(std::array<std::string, 3>{"a", "b", "c"}), "a, b and c");
}

class BlockUseTest : public testing::Test {
 protected:
  BlockUseTest() {
    const std::string pci = "../../devices/pci0000:00/0000:00:03.0/0000:01:00.0/nvme/nvme0/nvme0n1";
    kernel_.link("/sys/class/block/nvme0n1", pci);
    kernel_.link("/sys/class/block/nvme0n1p1", pci + "/nvme0n1p1");
    kernel_.link("/sys/class/block/sda", "../../devices/pci0000:00/0000:00:1f.2/ata1/host0/block/sda");
    kernel_.file("/proc/self/mounts", "proc /proc proc rw 0 0\n/dev/sda / ext4 rw 0 0\n");
    kernel_.file("/proc/swaps", "Filename\t\t\t\tType\t\tSize\n");
  }
  test::TreeKernel kernel_;
};

TEST_F(BlockUseTest, IsNoneOfADiskWithNothingMounted) { EXPECT_EQ(block_use(kernel_, nvme), ""); }

TEST_F(BlockUseTest, NamesWhereAPartitionIsMounted) {
  kernel_.file("/proc/self/mounts", "/dev/nvme0n1p1 /home ext4 rw 0 0\n");
  EXPECT_EQ(block_use(kernel_, nvme), "nvme0n1p1 is mounted on /home");
}

TEST_F(BlockUseTest, NamesSwap) {
  kernel_.file("/proc/swaps",
               "Filename\t\t\t\tType\t\tSize\n/dev/nvme0n1                            partition\t4096\n");
  EXPECT_EQ(block_use(kernel_, nvme), "nvme0n1 holds swap");
}

TEST_F(BlockUseTest, NamesWhatIsBuiltOnTopOfThePartition) {
  kernel_.directory("/sys/class/block/nvme0n1p1/holders/dm-0");
  EXPECT_EQ(block_use(kernel_, nvme), "nvme0n1p1 is part of dm-0");
}

TEST_F(BlockUseTest, IsNotThatOfAnotherDevice) {
  EXPECT_EQ(block_use(kernel_, {.domain = 0, .bus = 0, .device = 2, .function = 0}), "");
  EXPECT_EQ(block_use(kernel_, {.domain = 0, .bus = 0, .device = 0x1f, .function = 2}), "sda is mounted on /");
}

}  // namespace host_use_test
}  // namespace postern::tool
