// SPDX-License-Identifier: Apache-2.0
// Failing reads of sysfs: only ENOENT means that something does not exist.
#include "host/sysfs.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/backend.hpp>
#include <postern/binding.hpp>
#include <postern/locked_memory.hpp>
#include <postern/pci_function.hpp>

#include "base/remedy.hpp"
#include "host/node.hpp"
#include "host/requirements.hpp"
#include "host/turn_iommu_on.hpp"
#include "support/tree_kernel.hpp"

namespace postern {
namespace sysfs_test {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

constexpr std::array errnos = {EACCES, EIO, EMFILE, ENFILE, ENOMEM, EPERM, ENODEV, ELOOP, ENOTDIR, EINVAL};
constexpr std::array readers = {"read", "readlink", "opendir", "stat", "pread", "open"};

// Makes each call of `read` fail with each errno. The error must name the call, its path and the errno.
void expect_each_failure_told(const std::function<Result<void>(Kernel&)>& read) {
  for (const int code : errnos) {
    for (int number = 0;; ++number) {
      sim::Kernel simulated;
      sim::FailingKernel kernel(simulated);
      kernel.fail_call(number, code);
      const auto done = read(kernel);
      if (!kernel.failed()) {
        EXPECT_GT(number, 1);
        break;
      }
      SCOPED_TRACE("call " + std::to_string(number) + ", " + errno_name(code));
      ASSERT_FALSE(done);
      const std::string message = done.error().message();
      EXPECT_EQ(done.error().code(), code) << message;
      EXPECT_THAT(readers, testing::Contains(done.error().operation())) << message;
      EXPECT_THAT(message, HasSubstr("/sys/"));
    }
  }
}

template <typename T>
Result<void> without_value(Result<T> result) {
  return result ? Result<void>() : Result<void>(failure_of(result));
}

TEST(SysfsFailure, OfAFunctionIsTold) {
  expect_each_failure_told([](Kernel& kernel) { return without_value(find_pci_function(kernel, {.device = 1})); });
}

TEST(SysfsFailure, OfTheListOfFunctionsIsTold) {
  expect_each_failure_told([](Kernel& kernel) { return without_value(list_pci_functions(kernel)); });
}

TEST(SysfsFailure, OfAGroupIsToldAndNeverMakesItViable) {
  expect_each_failure_told([](Kernel& kernel) {
    const auto device = find_host_device(kernel, "pci", "0000:01:00.0");
    return without_value(device ? find_iommu_group(kernel, *device->iommu_group)
                                : Result<IommuGroup>(failure(device.error())));
  });
}

TEST(SysfsFailure, OfABindingIsToldBeforeTheDeviceIsMoved) {
  for (const int code : errnos) {
    for (const char* const file : {"/driver", "/driver_override", "/vendor", "/device", "/subsystem_vendor"}) {
      test::TreeKernel kernel;
      const std::string path = "/sys/bus/pci/devices/0000:00:01.0";
      kernel.link(path + "/driver", "../../../bus/pci/drivers/nvme");
      kernel.file(path + "/driver_override", "(null)\n");
      kernel.directory("/sys/bus/pci/drivers/vfio-pci");
      const HostDevice device = find_host_device(kernel, "pci", "0000:00:01.0").value();
      kernel.reading_gives(path + file, -code);
      const auto bound = bind_to_driver(kernel, device, "vfio-pci");
      ASSERT_FALSE(bound) << file;
      EXPECT_EQ(bound.error().code(), code);
      EXPECT_THAT(bound.error().message(), StartsWith(path + file + ": read"));
      kernel.reading_gives(path + file, 0);
      std::string text;
      ASSERT_EQ(kernel.read_file(path + "/driver_override", text), 0);
      EXPECT_EQ(text, "(null)\n") << file;
    }
  }
}

TEST(Sysfs, SaysOfEnoentAloneThatThereIsNone) {
  test::TreeKernel kernel;
  EXPECT_EQ(sysfs::text(kernel, "/sys/x").value(), std::nullopt);
  EXPECT_EQ(sysfs::number(kernel, "/sys/x").value(), std::nullopt);
  EXPECT_EQ(sysfs::link_name(kernel, "/sys/x").value(), std::nullopt);
  EXPECT_EQ(sysfs::is_there(kernel, "/sys/x").value(), false);
  EXPECT_THAT(sysfs::entries(kernel, "/sys/x").value(), IsEmpty());
  for (const int code : errnos) {
    kernel.reading_gives("/sys/x", -code);
    EXPECT_EQ(sysfs::text(kernel, "/sys/x").error().code(), code);
    EXPECT_EQ(sysfs::number(kernel, "/sys/x").error().code(), code);
    EXPECT_EQ(sysfs::link_name(kernel, "/sys/x").error().code(), code);
    EXPECT_EQ(sysfs::is_there(kernel, "/sys/x").error().code(), code);
    EXPECT_EQ(sysfs::entries(kernel, "/sys/x").error().code(), code);
    EXPECT_EQ(sysfs::text_if_readable(kernel, "/sys/x"), "");
    EXPECT_EQ(sysfs::text(kernel, "/sys/x").error().remedies().contains(RemedyCode::raise_open_files_limit),
              code == EMFILE);
  }
}

// A group of two: the device, and another that is bound to a driver.
class Twins : public ::testing::Test {
 protected:
  static constexpr const char* device = "0000:02:00.0";
  static constexpr const char* other = "0000:02:00.1";
  Twins() {
    for (const char* const name : {device, other}) {
      const std::string path = std::string("/sys/bus/pci/devices/") + name;
      kernel.file(path + "/vendor", "0x1b36\n");
      kernel.file(path + "/class", "0x010802\n");
      group.members.push_back({.name = name, .bus = "pci", .sysfs_path = path, .driver = "nvme"});
    }
  }
  test::TreeKernel kernel;
  IommuGroup group{.id = GroupId{7}, .path = {}, .members = {}};
};

TEST_F(Twins, OfWhichOneCannotBeJudgedAreNotToBeBound) {
  ASSERT_THAT(advise_on_group(kernel, group, device).to_bind, ElementsAre(other));
  for (const char* const path :
       {"/sys/bus/pci/devices/0000:02:00.1/class", "/sys/bus/pci/devices/0000:02:00.0/physfn"}) {
    for (const int code : errnos) {
      kernel.reading_gives(path, -code);
      const GroupAdvice advice = advise_on_group(kernel, group, device);
      EXPECT_THAT(advice.to_bind, IsEmpty());
      EXPECT_THAT(advice.remedy.text(), AllOf(HasSubstr(other), HasSubstr(path), HasSubstr(errno_name(code))));
      EXPECT_THAT(advice.why, AllOf(HasSubstr("is unknown"), HasSubstr(path), HasSubstr(errno_name(code))));
    }
    kernel.reading_gives(path, 0);
  }
}

TEST_F(Twins, MayNeedAVfTokenWhereThePhysicalFunctionCannotBeRead) {
  EXPECT_EQ(physical_function_with_token(kernel, group.members[0]).value(), std::nullopt);
  const std::string path = group.members[0].sysfs_path + "/physfn";
  for (const int code : errnos) {
    kernel.reading_gives(path, -code);
    const auto found = physical_function_with_token(kernel, group.members[0]);
    ASSERT_FALSE(found);
    EXPECT_THAT(found.error().message(), StartsWith(path + ": readlink: " + errno_name(code)));
  }
  kernel.reading_gives(path, 0);
  kernel.link(path, "../" + std::string(other));
  kernel.reading_gives("/sys/bus/pci/devices/" + std::string(other) + "/vfio-dev", -EIO);
  EXPECT_FALSE(physical_function_with_token(kernel, group.members[0])) << "whether it is VFIO's is not known";
}

TEST_F(Twins, MayBeSilentWhereConfigSpaceCannotBeOpened) {
  const HostDevice& silent = group.members[0];
  EXPECT_TRUE(check_responds(kernel, silent)) << "it has none";
  for (const int code : errnos) {
    kernel.open_gives(silent.sysfs_path + "/config", -code);
    const auto answer = check_responds(kernel, silent);
    ASSERT_FALSE(answer);
    EXPECT_EQ(answer.error().code(), code);
    EXPECT_NE(answer.error().kind(), ErrorKind::no_answer);
    EXPECT_THAT(answer.error().message(), HasSubstr("/config: open"));
  }
}

TEST_F(Twins, IsGoneWhereItWasUnpluggedWhileItWasRead) {
  // The folder exists at first; then reading a file in it fails as for a device that was removed.
  class Unplugged : public sim::FailingKernel {
   public:
    using FailingKernel::FailingKernel;
    int code = 0;
    int read_file(const std::string& path, std::string& contents) override {
      if (path != "/sys/bus/pci/devices/0000:02:00.1/vendor") return FailingKernel::read_file(path, contents);
      gone_ = true;
      return -code;
    }
    int status(const std::string& path, FileStatus& status) override {
      if (gone_ && path == "/sys/bus/pci/devices/0000:02:00.1") return -ENOENT;
      return FailingKernel::status(path, status);
    }

   private:
    bool gone_ = false;
  };
  for (const int code : {ENOENT, ENODEV}) {
    Unplugged unplugged(kernel);
    unplugged.code = code;
    const auto functions = list_pci_functions(unplugged);
    ASSERT_TRUE(functions) << functions.error().message();
    ASSERT_EQ(functions->size(), 1U) << errno_name(code);
    EXPECT_EQ(functions->front().host.name, device);
  }
}

// A PC whose IOMMU is off.
class Off : public ::testing::Test {
 protected:
  Off() {
    kernel.directory("/sys/kernel/iommu_groups");
    kernel.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor vme\n");
    kernel.file("/proc/cmdline", "quiet\n");
    kernel.directory("/sys/firmware/acpi/tables");
  }
  test::TreeKernel kernel;
};

TEST_F(Off, IsNotSaidWhereTheGroupsCannotBeListed) {
  for (const int code : errnos) {
    kernel.reading_gives("/sys/kernel/iommu_groups", -code);
    const auto used = require_iommu(kernel);
    ASSERT_FALSE(used);
    EXPECT_EQ(used.error().code(), code);
    EXPECT_EQ(used.error().operation(), "opendir");
    EXPECT_NE(used.error().kind(), ErrorKind::no_iommu);
    EXPECT_THAT(used.error().message(), HasSubstr("/sys/kernel/iommu_groups"));
  }
}

TEST_F(Off, GetsNoAdviceForAnotherMachine) {
  ASSERT_TRUE(turn_iommu_on(kernel));
  for (const char* const path :
       {"/proc/cpuinfo", "/proc/cmdline", "/sys/hypervisor/type", "/sys/firmware/acpi/tables",
        "/sys/firmware/acpi/tables/DMAR", "/sys/firmware/acpi/tables/IVRS", "/sys/class/dmi/id/sys_vendor"}) {
    for (const int code : errnos) {
      kernel.reading_gives(path, -code);
      ASSERT_FALSE(turn_iommu_on(kernel)) << path;
      const auto used = require_iommu(kernel);
      ASSERT_FALSE(used);
      EXPECT_EQ(used.error().kind(), ErrorKind::no_iommu);
      EXPECT_EQ(used.error().remedies(), Remedies(RemedyCode::describe_iommu));
      ASSERT_EQ(used.error().causes().size(), 1U);
      EXPECT_THAT(used.error().causes()[0].message(), AllOf(StartsWith(path), HasSubstr(errno_name(code))));
    }
    kernel.reading_gives(path, 0);
  }
}

TEST(InterruptIsolation, IsUnknownWhereACallFails) {
  for (const int code : errnos) {
    for (int number = 0;; ++number) {
      sim::Kernel simulated;
      sim::FailingKernel kernel(simulated);
      ASSERT_EQ(read_interrupt_isolation(kernel, std::nullopt).isolated, true);
      kernel.fail_call(number, code);
      const InterruptIsolation isolation = read_interrupt_isolation(kernel, std::nullopt);
      if (!kernel.failed()) break;
      EXPECT_EQ(isolation.isolated, std::nullopt) << "call " << number;
      EXPECT_THAT(isolation.reason, AllOf(StartsWith("/"), HasSubstr(errno_name(code)))) << "call " << number;
    }
  }
}

TEST(InterruptIsolation, IsRequiredWhereTheParameterThatWaivesItCannotBeRead) {
  test::TreeKernel kernel;
  kernel.link("/sys/class/iommu/dmar0/devices/0000:00:01.0", "../0000:00:01.0");
  kernel.file("/proc/interrupts", " 24: 0 PCI-MSI 0-edge eth0\n");
  const std::string path = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
  const auto require = [&] {
    return require_interrupt_isolation(kernel, nullptr, "vfio_iommu_type1", "backend type1");
  };
  EXPECT_EQ(require().error().kind(), ErrorKind::interrupts_not_isolated);
  kernel.file(path, "Y\n");
  EXPECT_TRUE(require());
  for (const int code : errnos) {
    kernel.reading_gives(path, -code);
    const auto isolated = require();
    ASSERT_FALSE(isolated);
    EXPECT_THAT(isolated.error().message(), StartsWith(path + ": read: " + errno_name(code)));
  }
}

TEST(MissingNode, GetsNoAdviceWhereItIsUnknownWhetherTheKernelHasIt) {
  test::TreeKernel kernel;
  const Node node{.path = "/dev/iommu",
                  .sysfs = "/sys/class/misc/iommu",
                  .remedy = remedy<RemedyCode::load_module>("iommufd", "CONFIG_IOMMUFD")};
  EXPECT_EQ(open_node(kernel, node, "x").error().remedies(), node.remedy);
  for (const int code : errnos) {
    kernel.reading_gives(node.sysfs, -code);
    const auto opened = open_node(kernel, node, "x");
    ASSERT_FALSE(opened);
    EXPECT_EQ(opened.error().code(), ENOENT);
    EXPECT_FALSE(opened.error().remedies().contains(RemedyCode::load_module)) << errno_name(code);
  }
}

TEST(Processor, ThatIsUnknownGetsNoAdviceForAnother) {
  test::TreeKernel kernel;
  kernel.file("/proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
  const Backend& backend = *backends().front();
  EXPECT_FALSE(backend.probe(kernel, nullptr).error().remedies().empty());
  for (const int code : errnos) {
    kernel.reading_gives("/proc/cpuinfo", -code);
    EXPECT_EQ(backends_for_processor(kernel).error().code(), code);
    const auto probed = backend.probe(kernel, nullptr);
    ASSERT_FALSE(probed);
    EXPECT_EQ(probed.error().kind(), ErrorKind::unavailable);
    EXPECT_TRUE(probed.error().remedies().empty());
    ASSERT_EQ(probed.error().causes().size(), 1U);
    EXPECT_THAT(probed.error().causes()[0].message(), StartsWith("/proc/cpuinfo: read: " + errno_name(code)));
  }
}

TEST(LockedMemory, AsksForProcToBeMountedOnlyWhereItIsNot) {
  test::TreeKernel kernel;
  EXPECT_TRUE(LockedMemory::read(kernel).error().remedies().contains(RemedyCode::mount_proc));
  for (const int code : errnos) {
    kernel.reading_gives("/proc/self/limits", -code);
    EXPECT_FALSE(LockedMemory::read(kernel).error().remedies().contains(RemedyCode::mount_proc)) << errno_name(code);
  }
}

}  // namespace sysfs_test
}  // namespace postern
