// SPDX-License-Identifier: Apache-2.0
// Finds the processes that have a device open.
#include <gtest/gtest.h>

#include <array>

#include "host/holders.hpp"
#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace host_use_test {

const std::array<std::string, 2> nodes = {"/dev/vfio/2", "/dev/vfio/devices/vfio0"};

// A kernel that hides the open files of other users' processes.
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
  EXPECT_EQ(holders.paths, (std::vector<std::string>{"/dev/vfio/2", "/dev/vfio/devices/vfio0"}));
  EXPECT_EQ(holders.hidden, "");
}

TEST(Holders, AreThoseToWhomTheNodeWasRemovedToo) {
  test::TreeKernel kernel;
  kernel.link("/proc/20/fd/7", "/dev/vfio/devices/vfio0 (deleted)");
  EXPECT_EQ(find_holders(kernel, nodes).processes, (std::vector<std::string>{"a process (pid 20)"}));
}

TEST(Holders, OfAGroupWithoutAnIommuHaveItsNodeOpenByTheNameOfThat) {
  test::TreeKernel kernel;
  kernel.link("/sys/bus/pci/devices/0000:00:01.0/iommu_group", "../../../kernel/iommu_groups/2");
  kernel.link("/proc/20/fd/7", "/dev/vfio/noiommu-2");
  kernel.link("/proc/900/fd/3", "/dev/vfio/2");
  const auto holders_of_device = [&kernel] {
    return find_holders(kernel, find_host_device(kernel, "pci", "0000:00:01.0").value()).processes;
  };
  EXPECT_EQ(holders_of_device(), std::vector<std::string>{"a process (pid 900)"});
  kernel.directory("/sys/class/vfio/noiommu-2");
  EXPECT_EQ(holders_of_device(), std::vector<std::string>{"a process (pid 20)"});
}

TEST(Holders, LeaveThisProcessOut) {
  test::TreeKernel kernel;
  kernel.link("/proc/30/fd/3", "/dev/vfio/2");
  kernel.link("/proc/self", "30");
  EXPECT_TRUE(find_holders(kernel, nodes).processes.empty());
}

TEST(Holders, MayBeHiddenWhereAProcessDoesNotShowItsFiles) {
  Secretive kernel;
  kernel.directory("/proc/1/fd");
  EXPECT_EQ(find_holders(kernel, nodes).hidden, "only root can see which files other users have open");
}

TEST(Holders, MayBeHiddenOutsideOfAPidNamespace) {
  test::TreeKernel kernel;
  kernel.directory("/proc/1/fd");
  kernel.link("/proc/self/ns/pid", "pid:[4026531836]");
  EXPECT_EQ(find_holders(kernel, nodes).hidden, "");
  kernel.link("/proc/self/ns/pid", "pid:[4026532441]");
  EXPECT_EQ(find_holders(kernel, nodes).hidden, "this is a PID namespace, and processes outside of it are not visible");
}

TEST(Holders, MayBeHiddenWhereProcHidesTheProcessesOfOthers) {
  test::TreeKernel kernel;
  kernel.directory("/proc/900/fd");
  kernel.link("/proc/self/ns/pid", "pid:[4026531836]");
  EXPECT_EQ(find_holders(kernel, nodes).hidden, "/proc hides the processes of other users (hidepid)");
}

TEST(Holders, MayBeHiddenWhereThereIsNoProc) {
  test::TreeKernel kernel;
  EXPECT_NE(find_holders(kernel, nodes).hidden, "");
}

TEST(HoldersText, SaysWhenHoldersAreUnknown) {
  test::TreeKernel kernel;
  kernel.directory("/proc/900/fd");
  const HostDevice device{.name = "0000:00:01.0", .bus = "pci", .iommu_group = GroupId{2}};
  EXPECT_EQ(holders_text(kernel, device), "");
  kernel.link("/proc/self/ns/pid", "pid:[4026532441]");
  EXPECT_EQ(holders_text(kernel, device),
            "it is unknown who has it open: this is a PID namespace, and processes outside of it are not visible");
}

TEST(ListOf, IsAsASentenceHasIt) {
  EXPECT_EQ(list_of({}), "");
  EXPECT_EQ(list_of(std::array<std::string, 1>{"a"}), "a");
  EXPECT_EQ(list_of(std::array<std::string, 3>{"a", "b", "c"}), "a, b and c");
}

}  // namespace host_use_test
}  // namespace postern::tool
