// SPDX-License-Identifier: Apache-2.0
// Makes each call of the judgements fail: a fact that cannot be read is unknown, never "does not exist".
#include "host/reading.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sysmacros.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <set>

#include "host/bound.hpp"
#include "host/conditions.hpp"
#include "host/in_use.hpp"
#include "support/tree_kernel.hpp"

namespace postern::tool {
namespace reading_test {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::array errnos = {EACCES, EIO, ENODEV, EMFILE, ELOOP, EINVAL};

// Records the paths of /sys and /proc that are read, and makes every call that reads one of them fail.
class Failing : public sim::FailingKernel {
 public:
  using FailingKernel::FailingKernel;
  std::set<std::string> paths;
  std::string failing;
  int code = 0;

  int open(const char* path, int flags) override { return fails(path) ? -code : FailingKernel::open(path, flags); }
  int read_file(const std::string& path, std::string& contents) override {
    return fails(path) ? -code : FailingKernel::read_file(path, contents);
  }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return fails(path) ? -code : FailingKernel::list_directory(path, names);
  }
  int read_link(const std::string& path, std::string& target) override {
    return fails(path) ? -code : FailingKernel::read_link(path, target);
  }
  int status(const std::string& path, FileStatus& status) override {
    return fails(path) ? -code : FailingKernel::status(path, status);
  }

 private:
  bool fails(const std::string& path) {
    if (path.starts_with("/sys/") || path.starts_with("/proc/")) paths.insert(path);
    return path == failing;
  }
};

std::size_t open_questions(const Diagnosis& diagnosis) { return diagnosis.not_met() + diagnosis.unknown(); }
std::string details_of(const Diagnosis& diagnosis) {
  std::string all;
  for (const auto* part : {&diagnosis.host, &diagnosis.device}) {
    for (const Condition& condition : *part) all += condition.key + ": " + condition.detail + "\n";
  }
  return all;
}

TEST(Diagnosis, MeetsFewerConditionsWhereAnythingCannotBeRead) {
  for (const sim::Host& host : {sim::pc(), sim::pseries()}) {
    sim::Kernel simulated(host);
    Failing kernel(simulated);
    const PciAddress device{.device = static_cast<std::uint8_t>(host.platform == sim::Platform::pc ? 1 : 0)};
    const Question question{.device = device, .memory = std::uint64_t{1} << 30};
    const std::size_t before = open_questions(diagnose(kernel, question));
    const std::set<std::string> paths = kernel.paths;
    EXPECT_GT(paths.size(), 20U);
    for (const std::string& path : paths) {
      // Not needed: its own pid, without which it is treated like others; one group of several that show an active
      // IOMMU.
      if (path == "/proc/self" || path.starts_with("/sys/class/vfio/noiommu-")) continue;
      // Needed only by iommufd, which POWER does not have.
      const bool is_power = host.platform == sim::Platform::pseries;
      if (is_power && (path == "/sys/class/misc/iommu" || path.ends_with("/iommu"))) continue;
      kernel.failing = path;
      for (const int code : errnos) {
        kernel.code = code;
        const Diagnosis diagnosis = diagnose(kernel, question);
        EXPECT_GT(open_questions(diagnosis), before) << path << ": " << errno_name(code) << '\n'
                                                     << details_of(diagnosis);
      }
    }
  }
}

// A host whose device 0000:01:00.0 has a disk, a network interface and a display, all unused.
class QuietHost : public test::TreeKernel {
 public:
  QuietHost() {
    const std::string place = "../../devices/pci0000:00/0000:01:00.0/";
    for (const char* const name : {"vendor", "device"}) file(device_path + name, "0x1b36\n");
    file(device_path + "class", "0x010802\n");
    file(device_path + "sriov_numvfs", "0\n");
    file(device_path + "boot_vga", "0\n");
    file("/proc/iomem", "00000000-00000000 : 0000:01:00.0\n");
    link("/sys/class/block/nvme0n1", place + "nvme/nvme0/nvme0n1");
    file("/sys/class/block/nvme0n1/dev", "259:0\n");
    file("/sys/class/block/nvme0n1/hidden", "0\n");
    node("/dev/nvme0n1", {.mode = S_IFBLK | 0660U, .device = makedev(259, 0)});
    link("/sys/class/nvme-subsystem/nvme-subsys0/nvme9", "../../pci0000:00/0000:09:00.0/nvme/nvme9");
    link("/sys/class/net/eth0", place + "net/eth0");
    file("/sys/class/net/eth0/flags", "0x1002\n");
    file("/proc/net/route", "Iface\n");
    file("/proc/net/ipv6_route", "");
    link("/sys/dev/char/226:1", place + "drm/card1");
    file("/sys/dev/char/226:1/uevent", "DEVNAME=dri/card1\n");
    link("/proc/900/fd/7", "/dev/null");
    directory("/proc/1/fd");
  }
  static inline const std::string device_path = "/sys/bus/pci/devices/0000:01:00.0/";
};

TEST(InUse, IsUnknownWhereAnythingCannotBeRead) {
  QuietHost host;
  Failing kernel(host);
  HostDevice device{.name = "0000:01:00.0", .bus = "pci", .sysfs_path = "/sys/bus/pci/devices/0000:01:00.0"};
  for (const char* const driver : {"nvme", "nvidia"}) {
    device.driver = driver;
    kernel.failing.clear();
    kernel.paths.clear();
    const InUse quiet = find_uses(kernel, device);
    ASSERT_EQ(quiet.uses_text() + quiet.unknown_text(), "");
    const std::set<std::string> paths = kernel.paths;
    EXPECT_GT(paths.size(), 20U);
    for (const std::string& path : paths) {
      // Not needed: its own pid, without which it is treated like others; a minor number, without which all nodes of
      // the driver are searched for.
      if (path == "/proc/self" || path.starts_with("/proc/driver/nvidia/")) continue;
      kernel.failing = path;
      for (const int code : errnos) {
        // EINVAL means that it is not a link.
        if (code == EINVAL) continue;
        kernel.code = code;
        EXPECT_THAT(find_uses(kernel, device).unknown_text(), path.find("/fd") != std::string::npos && code == EACCES
                                                                  ? HasSubstr("only root")
                                                                  : HasSubstr(std::strerror(code)))
            << path << ": " << errno_name(code);
      }
    }
  }
}

TEST(InUse, NamesWhatItIsUnknownForAndWhatCouldNotBeRead) {
  QuietHost host;
  const HostDevice device{.name = "0000:01:00.0", .bus = "pci", .sysfs_path = "/sys/bus/pci/devices/0000:01:00.0"};
  host.reading_gives("/sys/class/block/nvme0n1", -EACCES);
  host.reading_gives("/sys/class/net/eth0/flags", -EIO);
  EXPECT_EQ(find_uses(host, device).unknown_text(),
            "its disks: /sys/class/block/nvme0n1: Permission denied and its network interfaces: "
            "/sys/class/net/eth0/flags: Input/output error");
}

TEST(GroupRemedy, IsToLookAgainWhereTheGroupCannotBeRead) {
  sim::Kernel simulated;
  Failing kernel(simulated);
  const PciFunction function = find_pci_function(kernel, {.bus = 1}).value();  // its group has two
  ASSERT_FALSE(function.host.is_vfio);
  EXPECT_THAT(require_bound(kernel, function, "show").error().remedy(), HasSubstr("postern bind 0000:01:00.1"));
  kernel.failing = "/sys/kernel/iommu_groups/" + to_string(*function.host.iommu_group) + "/devices";
  for (const int code : errnos) {
    kernel.code = code;
    EXPECT_THAT(require_bound(kernel, function, "show").error().remedy(),
                AllOf(HasSubstr("are unknown"), HasSubstr(kernel.failing), HasSubstr(errno_name(code))));
  }
}

TEST(Reading, SaysOfEnoentAloneThatThereIsNone) {
  test::TreeKernel kernel;
  EXPECT_EQ(read_text(kernel, "/x").value(), std::nullopt);
  EXPECT_EQ(read_target(kernel, "/x").value(), std::nullopt);
  EXPECT_EQ(is_there(kernel, "/x").value(), false);
  EXPECT_THAT(read_entries(kernel, "/x").value(), IsEmpty());
  for (const int code : errnos) {
    kernel.reading_gives("/x", -code);
    EXPECT_EQ(read_text(kernel, "/x").error().summary(),
              std::string("/x: ") + std::strerror(code) + " (read: " + errno_name(code) + ")");
    EXPECT_EQ(read_target(kernel, "/x").error().operation(), "readlink");
    EXPECT_EQ(is_there(kernel, "/x").error().code(), code);
    EXPECT_EQ(read_entries(kernel, "/x").error().object(), "/x");
  }
}

}  // namespace reading_test
}  // namespace postern::tool
