// SPDX-License-Identifier: Apache-2.0
// Moving a device between drivers: on a file tree with a small driver core, with threads on the simulated kernel, and
// with processes that use the lock file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <postern-sim/kernel.hpp>
#include <postern/binding.hpp>
#include <thread>
#include <utility>

#include "host/binding_lock.hpp"
#include "support/tree_kernel.hpp"

namespace postern {
namespace binding_test {

using ::testing::HasSubstr;

const std::string device_path = "/sys/bus/pci/devices/0000:00:01.0";
const std::string driver_path = "/sys/bus/pci/drivers/";
const std::string vfio_bind = driver_path + "vfio-pci/bind";
const std::string override_path = device_path + "/driver_override";

// A file tree in which writes to bind, unbind and drivers_probe act as in the kernel's driver core.
class DriverCore : public test::TreeKernel {
 public:
  DriverCore() {
    for (const char* driver : {"nvme", "vfio-pci", "uio_pci_generic"}) {
      file(driver_path + driver + "/bind", "");
      file(driver_path + driver + "/unbind", "");
    }
    file("/sys/bus/pci/drivers_probe", "");
    file(override_path, "(null)\n");
    link(device_path + "/driver", driver_path + "nvme");
    link(device_path + "/iommu_group", "../../../kernel/iommu_groups/7");
    set_ids("0x0010");
  }
  void set_ids(const std::string& device) {
    file(device_path + "/vendor", "0x1b36\n");
    file(device_path + "/device", device + "\n");
    file(device_path + "/subsystem_vendor", "0x1af4\n");
    file(device_path + "/subsystem_device", "0x1100\n");
  }
  int write_file(const std::string& path, const std::string& contents) override {
    if (before_write) before_write(path);
    const int result = TreeKernel::write_file(path, contents);
    if (result < 0) return result;
    writes.push_back(path);
    const std::string what = path.substr(path.rfind('/') + 1);
    if (what == "unbind") {
      if (driver_path + driver() + "/unbind" != path) return -ENODEV;
      remove(device_path + "/driver");
    } else if (what == "bind") {
      if (!driver().empty()) return -EBUSY;
      if (nobody_takes_it || path == driver_path + refusing_driver + "/bind") return -EINVAL;
      link(device_path + "/driver", path.substr(0, path.rfind('/')));
    } else if (what == "drivers_probe" && driver().empty()) {
      link(device_path + "/driver", driver_path + override_text());
    }
    return 0;
  }
  std::string driver() {
    std::string target;
    return read_link(device_path + "/driver", target) < 0 ? "" : target.substr(target.rfind('/') + 1);
  }
  std::string override_text() {
    std::string text;
    EXPECT_EQ(read_file(override_path, text), 0);
    return text;
  }

  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    return path == unreadable ? -EMFILE : TreeKernel::list_directory(path, names);
  }

  std::string unreadable;       // a folder that cannot be listed
  std::string refusing_driver;  // a driver that refuses the device
  bool nobody_takes_it = false;
  std::function<void(const std::string& path)> before_write;  // acts as another program at that moment
  std::vector<std::string> writes;
};

class BindingTest : public ::testing::Test {
 protected:
  HostDevice disk() { return find_host_device(kernel, "pci", "0000:00:01.0").value(); }
  DriverCore kernel;
};

TEST_F(BindingTest, ADriverThatIsNotLoadedIsNamedWithHowToLoadIt) {
  auto bound = bind_to_driver(kernel, disk(), "vfio-platform");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), ENOENT) << "what stat(2) returned";
  EXPECT_EQ(bound.error().kind(), ErrorKind::unavailable);
  EXPECT_THAT(bound.error().message(), HasSubstr("modprobe vfio-platform"));
}

TEST_F(BindingTest, TheDriverThatIsThereChangesNothing) {
  EXPECT_EQ(bind_to_driver(kernel, disk(), "nvme").value().driver, "nvme");
  EXPECT_TRUE(kernel.writes.empty());
}

TEST_F(BindingTest, GoesThereAndBack) {
  const Binding before = bind_to_driver(kernel, disk(), "vfio-pci").value();
  EXPECT_EQ(before.driver, "nvme");
  EXPECT_EQ(before.driver_override, std::nullopt);
  EXPECT_EQ(before.ids, "1b36:0010 1af4:1100");
  EXPECT_EQ(kernel.driver(), "vfio-pci");
  ASSERT_TRUE(restore_binding(kernel, before));
  EXPECT_EQ(kernel.driver(), "nvme");
  EXPECT_EQ(kernel.override_text(), "\n") << "an empty line takes the override away";
}

TEST_F(BindingTest, IsReadAgainForWhoAsksForIt) {
  HostDevice before = disk();
  before.vf_token = VfToken{};
  const auto bound = bind_and_read(kernel, before, "vfio-pci");
  ASSERT_TRUE(bound) << bound.error().message();
  EXPECT_EQ(bound->device.driver, "vfio-pci");
  EXPECT_TRUE(bound->device.vf_token.has_value()) << "which is not in sysfs";
  EXPECT_EQ(bound->previous.driver, "nvme");
  ASSERT_TRUE(restore_binding(kernel, bound->previous));
  EXPECT_EQ(kernel.driver(), "nvme");
}

TEST_F(BindingTest, ADeviceThatCannotBeReadAgainGoesBack) {
  const HostDevice before = disk();
  kernel.unreadable = device_path + "/vfio-dev";
  const auto bound = bind_and_read(kernel, before, "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), EMFILE);
  EXPECT_EQ(kernel.driver(), "nvme");
}

TEST_F(BindingTest, ADriverThatRefusesTheDeviceIsReportedAndTheOldOneIsPutBack) {
  kernel.refusing_driver = "vfio-pci";
  auto bound = bind_to_driver(kernel, disk(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), EINVAL) << "as the kernel has it";
  EXPECT_EQ(bound.error().operation(), "write " + vfio_bind);
  EXPECT_THAT(bound.error().message(), HasSubstr("dmesg"));
  EXPECT_EQ(kernel.override_text(), "\n");
  EXPECT_EQ(kernel.driver(), "nvme");
}

TEST_F(BindingTest, AVfioDriverThatRefusesADeviceWithoutAGroupIsExplained) {
  kernel.refusing_driver = "vfio-pci";
  kernel.remove(device_path + "/iommu_group");
  auto bound = bind_to_driver(kernel, disk(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), EINVAL) << "as the kernel has it";
  EXPECT_THAT(bound.error().message(), HasSubstr("in no IOMMU group"));
}

TEST_F(BindingTest, AnOriginalDriverThatRefusesTheDeviceLeavesItWhereItIs) {
  const Binding before = bind_to_driver(kernel, disk(), "vfio-pci").value();
  kernel.refusing_driver = "nvme";
  const auto restored = restore_binding(kernel, before);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code(), EINVAL);
  EXPECT_THAT(restored.error().message(), HasSubstr("nvme refused the device"));
  EXPECT_EQ(kernel.driver(), "vfio-pci");
  EXPECT_EQ(kernel.override_text(), "vfio-pci");
  kernel.refusing_driver.clear();
  EXPECT_TRUE(restore_binding(kernel, before));
  EXPECT_EQ(kernel.driver(), "nvme");
}

TEST_F(BindingTest, ADeviceThatIsLeftWithoutADriverIsToldSo) {
  kernel.refusing_driver = "vfio-pci";
  kernel.before_write = [this](const std::string& path) {
    if (path == vfio_bind) kernel.nobody_takes_it = true;
  };
  const auto bound = bind_to_driver(kernel, disk(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_THAT(bound.error().reason(), HasSubstr("the device is left without a driver"));
  EXPECT_EQ(kernel.driver(), "");
  EXPECT_EQ(kernel.override_text(), "\n");
}

TEST_F(BindingTest, ABridgeIsRefusedInTheKernelsWords) {
  kernel.refusing_driver = "vfio-pci";
  kernel.file(device_path + "/class", "0x060400\n");
  auto bound = bind_to_driver(kernel, disk(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), EINVAL);
  EXPECT_EQ(bound.error().reason(), "vfio-pci does not support bridges");
  EXPECT_EQ(kernel.driver(), "nvme");
}

TEST_F(BindingTest, WhatAnotherProgramHasBoundMeanwhileIsLeftAlone) {
  kernel.before_write = [this](const std::string& path) {
    if (path != vfio_bind) return;
    kernel.file(override_path, "uio_pci_generic");
    kernel.link(device_path + "/driver", driver_path + "uio_pci_generic");
  };
  auto bound = bind_to_driver(kernel, disk(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), EBUSY);
  EXPECT_THAT(bound.error().message(), HasSubstr("bound to uio_pci_generic"));
  EXPECT_EQ(kernel.driver(), "uio_pci_generic");
  EXPECT_EQ(kernel.override_text(), "uio_pci_generic");
}

TEST_F(BindingTest, ADriverThatAnotherProgramHasPutThereMeanwhileIsNotUnbound) {
  kernel.before_write = [this](const std::string& path) {
    if (path == driver_path + "nvme/unbind") kernel.link(device_path + "/driver", driver_path + "uio_pci_generic");
  };
  const auto bound = bind_to_driver(kernel, disk(), "vfio-pci");
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code(), ENODEV) << "as the kernel has it";
  EXPECT_THAT(bound.error().reason(), HasSubstr("it is no longer bound to nvme"));
  EXPECT_EQ(kernel.driver(), "uio_pci_generic");
  EXPECT_EQ(kernel.override_text(), "\n") << "the override was still the one that was to be taken back";
}

TEST_F(BindingTest, AnotherDeviceAtTheAddressIsNotGivenToTheDriverOfTheFirst) {
  const Binding before = bind_to_driver(kernel, disk(), "vfio-pci").value();
  kernel.set_ids("0x1533");
  const auto restored = restore_binding(kernel, before);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code(), ENODEV);
  EXPECT_THAT(restored.error().reason(), HasSubstr("1b36:1533 1af4:1100, not 1b36:0010 1af4:1100"));
  EXPECT_EQ(kernel.driver(), "vfio-pci");
}

TEST_F(BindingTest, NamesThatLeadElsewhereNeverBecomeAPath) {
  for (const char* name : {"", ".", "..", "../../../../tmp/x", "a/b", "nvme\n"}) {
    const auto bound = bind_to_driver(kernel, disk(), name);
    ASSERT_FALSE(bound) << name;
    EXPECT_EQ(bound.error().code(), EINVAL) << name;
    const Binding good{.bus = "pci", .device = "0000:00:01.0", .driver = "nvme", .driver_override = {}};
    for (Binding bad : {good, good, good, good}) {
      static int turn = 0;
      const int which = turn++ % 4;
      (which == 0   ? bad.bus
       : which == 1 ? bad.device
       : which == 2 ? *bad.driver
                    : bad.driver_override.emplace()) = name;
      const auto restored = restore_binding(kernel, bad);
      ASSERT_FALSE(restored) << name << " at " << which;
      EXPECT_EQ(restored.error().code(), EINVAL) << name << " at " << which;
    }
  }
  EXPECT_TRUE(kernel.writes.empty());
}

// The second starts while the first has the device between two drivers.
TEST_F(BindingTest, ASecondOneAtTheSameTimeIsRefusedAndTouchesNothing) {
  int refused = 0;
  bool came = false;
  kernel.before_write = [&](const std::string& path) {
    if (path != vfio_bind || std::exchange(came, true)) return;
    const std::size_t writes = kernel.writes.size();
    const HostDevice device = disk();
    const auto second = bind_to_driver(kernel, device, "uio_pci_generic");
    const auto third = restore_binding(kernel, {.bus = "pci", .device = "0000:00:01.0", .driver = "nvme"});
    const auto fourth = bind_to_default_driver(kernel, device);
    for (const int code :
         {second ? 0 : second.error().code(), third ? 0 : third.error().code(), fourth ? 0 : fourth.error().code()}) {
      if (code == EBUSY) ++refused;
    }
    EXPECT_EQ(kernel.writes.size(), writes);
  };
  EXPECT_TRUE(bind_to_driver(kernel, disk(), "vfio-pci"));
  EXPECT_EQ(refused, 3);
  EXPECT_EQ(kernel.driver(), "vfio-pci");
}

TEST(Binding, ByTwoThreadsAtOnceIsDoneByOneAndTheOtherIsToldSo) {
  sim::Kernel kernel(sim::find_host("sim").value());
  for (int round = 0; round < 200; ++round) {
    const HostDevice device = find_host_device(kernel, "pci", "0000:00:02.0").value();
    ASSERT_EQ(device.driver, "nvme");
    std::array<std::optional<Result<Binding>>, 2> results;
    std::atomic<int> ready = 0;
    const auto bind = [&](std::size_t which) {
      ++ready;
      while (ready < 2) std::this_thread::yield();
      results.at(which).emplace(bind_to_driver(kernel, device, "vfio-pci"));
    };
    std::thread other(bind, 1);
    bind(0);
    other.join();
    int won = 0;
    for (const auto& result : results) {
      if (*result) {
        ++won;
      } else {
        EXPECT_EQ((*result).error().code(), EBUSY) << (*result).error().message();
      }
    }
    EXPECT_GE(won, 1);
    ASSERT_EQ(find_host_device(kernel, "pci", "0000:00:02.0")->driver, "vfio-pci") << "round " << round;
    ASSERT_TRUE(restore_binding(kernel, {.bus = "pci", .device = "0000:00:02.0", .driver = "nvme"}));
  }
}

TEST(BindingLock, IsRefusedToAnotherProcessUntilTheFirstEnds) {
  std::string folder = testing::TempDir() + "postern-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  const std::string locks = folder + "/run/lock";
  std::array<int, 2> to_child{};
  std::array<int, 2> to_parent{};
  ASSERT_EQ(::pipe(to_child.data()), 0);
  ASSERT_EQ(::pipe(to_parent.data()), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const auto lock = BindingLock::take(system_kernel(), "pci", "0000:00:01.0", locks);
    char byte = lock ? 'y' : 'n';
    if (::write(to_parent[1], &byte, 1) != 1 || ::read(to_child[0], &byte, 1) != 1) ::_exit(1);
    ::_exit(0);  // without unlocking: the kernel does
  }
  char byte = 0;
  ASSERT_EQ(::read(to_parent[0], &byte, 1), 1);
  EXPECT_EQ(byte, 'y');
  const auto refused = BindingLock::take(system_kernel(), "pci", "0000:00:01.0", locks);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EWOULDBLOCK) << "what flock(2) returned";
  EXPECT_EQ(refused.error().operation(), "flock");
  EXPECT_EQ(refused.error().kind(), ErrorKind::in_use);
  EXPECT_THAT(refused.error().reason(), HasSubstr("another process"));
  EXPECT_TRUE(BindingLock::take(system_kernel(), "pci", "0000:00:02.0", locks)) << "another device is free";
  ASSERT_EQ(::write(to_child[1], &byte, 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(BindingLock::take(system_kernel(), "pci", "0000:00:01.0", locks));
  EXPECT_TRUE(BindingLock::take(system_kernel(), "pci", "0000:00:01.0", locks)) << "the one before has been let go";
  for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(fd);
  std::filesystem::remove_all(folder);
}

}  // namespace binding_test
}  // namespace postern
