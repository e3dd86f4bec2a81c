// SPDX-License-Identifier: Apache-2.0
// bind, unbind, reset, check and doctor on a simulated host that uses the device itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/pci_function.hpp>

#include "command.hpp"
#include "host/recorded_bindings.hpp"
#include "text/remedies.hpp"

namespace postern::tool {
namespace binding_commands_test {

using ::testing::HasSubstr;

const std::string name = "0000:00:02.0";

// A kernel on which opening some nodes fails, while access(2) succeeds.
class OverlaidKernel : public sim::FailingKernel {
 public:
  using sim::FailingKernel::FailingKernel;
  std::map<std::string, int> opens;   // negated errnos
  std::map<std::string, int> opened;  // number of opens of each path
  int open(const char* path, int flags) override {
    ++opened[path];
    const auto found = opens.find(path);
    return found == opens.end() ? sim::FailingKernel::open(path, flags) : found->second;
  }
};

class BindingCommands : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "postern-XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    kernel_.answer_file = [this](const std::string& path, std::string& contents, int result) {
      const auto found = files_.find(path);
      if (found == files_.end()) return result;
      contents = found->second;
      return 0;
    };
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Runs the command on the device. Sets out_ and err_ to its output.
  Result<Ending> run(const Command& command, std::vector<std::string> arguments = {}) {
    CLI::App app;
    const auto runner = command.add(app);
    arguments.push_back(device_);
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
    Session session{.kernel = kernel_, .bindings_folder = folder_, .format = format_, .out = {}, .err = {}};
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    auto ending = runner(session);
    out_ = testing::internal::GetCapturedStdout();
    err_ = testing::internal::GetCapturedStderr();
    return ending;
  }
  std::string driver() { return find_host_device(simulated_, "pci", name)->driver.value_or(""); }
  std::string cdev() { return find_host_device(simulated_, "pci", name)->cdev->path; }
  // Makes the device behave as one without power: the kernel finds no way to reset it.
  void does_not_answer() {
    kernel_.answer_read = [](void* buffer, std::size_t, std::uint64_t, ssize_t result) {
      if (result > 0) std::memset(buffer, 0xff, static_cast<std::size_t>(result));
      return result;
    };
    kernel_.answer = [](unsigned long request, void* argument, int result) {
      if (request == VFIO_DEVICE_GET_INFO && result >= 0)
        static_cast<vfio_device_info*>(argument)->flags &= ~static_cast<std::uint32_t>(VFIO_DEVICE_FLAGS_RESET);
      return result;
    };
  }
  void has_virtual_functions() { files_["/sys/bus/pci/devices/" + name + "/sriov_numvfs"] = "2\n"; }

  sim::Kernel simulated_{sim::find_host("sim").value()};
  OverlaidKernel kernel_{simulated_};
  std::map<std::string, std::string> files_;  // override the simulated kernel's
  Format format_ = Format::text;
  std::string device_ = name;
  std::string folder_;
  std::string out_;
  std::string err_;
};

TEST_F(BindingCommands, BindRefusesADeviceInUseAndForceSaysWhatIsLost) {
  has_virtual_functions();
  const auto refused = run(bind_command);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().reason(), HasSubstr("2 virtual functions"));
  EXPECT_EQ(driver(), "nvme");
  ASSERT_TRUE(run(bind_command, {"--force"}));
  EXPECT_THAT(err_, HasSubstr("this host loses its 2 virtual functions"));
  EXPECT_EQ(driver(), "vfio-pci");
}

TEST_F(BindingCommands, DoctorSaysWhatBindSays) {
  has_virtual_functions();
  EXPECT_EQ(run(doctor_command).value(), Ending::problem);
  EXPECT_THAT(out_, HasSubstr("NO  in use"));
  EXPECT_THAT(out_, HasSubstr("2 virtual functions"));
}

TEST_F(BindingCommands, NobodyElseCanBeOnASimulatedHost) {
  EXPECT_EQ(run(doctor_command).value(), Ending::problem) << "it is not bound";
  EXPECT_THAT(out_, testing::ContainsRegex("ok  in use +by nobody"));
}

TEST_F(BindingCommands, ResetRefusesADeviceInUseToo) {
  ASSERT_TRUE(run(bind_command));
  has_virtual_functions();
  const auto refused = run(reset_command);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_EQ(refused.error().operation(), "reset");
  ASSERT_TRUE(run(reset_command, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("reset by flr"));
}

TEST_F(BindingCommands, CheckRefusesADeviceInUseToo) {
  ASSERT_TRUE(run(bind_command));
  has_virtual_functions();
  const auto refused = run(check_command);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_EQ(refused.error().operation(), "check");
  EXPECT_EQ(run(check_command, {"--force", "--memory", "4K"}).value(), Ending::ok) << out_;
  EXPECT_THAT(err_, HasSubstr("this host loses its 2 virtual functions"));
}

TEST_F(BindingCommands, CheckOpensANodeOnceToFindWhatThereIsOnceForEachVersionAndOnceForEachPass) {
  ASSERT_TRUE(run(bind_command));
  kernel_.opened.clear();
  EXPECT_EQ(run(check_command, {"--memory", "4K", "--backend", "type1"}).value(), Ending::ok) << out_;
  EXPECT_EQ(kernel_.opened["/dev/vfio/vfio"], 1 + 2 + 2);
  kernel_.opened.clear();
  EXPECT_EQ(run(check_command, {"--memory", "4K", "--backend", "iommufd"}).value(), Ending::ok) << out_;
  EXPECT_EQ(kernel_.opened["/dev/iommu"], 1 + 1) << "it has no versions";
}

TEST_F(BindingCommands, DoctorOpensANodeOnceForEachBackend) {
  ASSERT_TRUE(run(bind_command));
  kernel_.opened.clear();
  EXPECT_EQ(run(doctor_command).value(), Ending::ok) << out_;
  EXPECT_EQ(kernel_.opened["/dev/iommu"], 1);
  EXPECT_EQ(kernel_.opened[cdev()], 1);
  EXPECT_LE(kernel_.opened["/dev/vfio/vfio"], 2) << "type1 and spapr";
}

TEST_F(BindingCommands, ABackendThatIsNotToldToAcceptUnsafeInterruptsIsSkippedAndAnotherTaken) {
  ASSERT_TRUE(run(bind_command));
  files_["/proc/interrupts"] = "            CPU0\n   2:         11     IO-APIC    2-edge      timer\n";
  files_["/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"] = "Y\n";
  EXPECT_EQ(run(doctor_command).value(), Ending::ok) << out_;
  EXPECT_THAT(out_, HasSubstr("--  backend iommufd"));
  EXPECT_EQ(run(check_command, {"--memory", "4K"}).value(), Ending::ok) << out_;
  EXPECT_THAT(out_, HasSubstr("interrupts of this device cannot be isolated"));
  EXPECT_THAT(out_, testing::Not(HasSubstr("failed:")));
  EXPECT_EQ(run(check_command, {"--memory", "4K", "--backend", "auto"}).value(), Ending::ok) << out_;
  EXPECT_THAT(out_, HasSubstr("passes through with type1"));
}

TEST_F(BindingCommands, DoctorResetAndCheckAgreeOnACdevThatTheDeviceCgroupForbids) {
  ASSERT_TRUE(run(bind_command));
  kernel_.opens[cdev()] = -EPERM;
  EXPECT_EQ(run(doctor_command).value(), Ending::ok) << out_;
  EXPECT_THAT(out_, HasSubstr("--  backend iommufd"));
  EXPECT_EQ(run(reset_command).value(), Ending::ok);
  EXPECT_EQ(run(check_command, {"--memory", "4K"}).value(), Ending::ok) << out_;
  EXPECT_THAT(out_, HasSubstr("device cgroup"));
  EXPECT_EQ(run(check_command, {"--memory", "4K", "--backend", "auto"}).value(), Ending::ok) << out_;
  kernel_.opens["/dev/vfio/vfio"] = -EPERM;
  EXPECT_EQ(run(doctor_command).value(), Ending::problem) << out_;
  EXPECT_FALSE(run(reset_command));
  EXPECT_FALSE(run(check_command, {"--memory", "4K"}));
}

TEST_F(BindingCommands, ResetOfADeviceThatDoesNotAnswerSaysSoAndWhatToTry) {
  ASSERT_TRUE(run(bind_command));
  does_not_answer();
  const auto refused = run(reset_command);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EIO);
  EXPECT_THAT(refused.error().reason(), HasSubstr("does not answer"));
  EXPECT_THAT(words_of(refused.error().remedies()), HasSubstr("pci/rescan"));
  EXPECT_THAT(words_of(refused.error().remedies()), testing::Not(HasSubstr("--bus")));
}

TEST_F(BindingCommands, ResetOfTheBusOfADeviceThatDoesNotAnswerSaysSoBesideTheKernelsErrno) {
  ASSERT_TRUE(run(bind_command));
  does_not_answer();
  const auto refused = run(reset_command, {"--bus"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENODEV) << "it is on a root bus";
  EXPECT_THAT(refused.error().reason(), HasSubstr("does not answer"));
  EXPECT_THAT(words_of(refused.error().remedies()), HasSubstr("pci/rescan"));
}

TEST_F(BindingCommands, CheckOfADeviceThatDoesNotAnswerSaysSoInTheSameWords) {
  ASSERT_TRUE(run(bind_command));
  does_not_answer();
  EXPECT_EQ(run(check_command, {"--memory", "4K"}).value(), Ending::problem);
  EXPECT_THAT(out_, HasSubstr("does not answer"));
  EXPECT_THAT(out_, HasSubstr("pci/rescan"));
  EXPECT_THAT(out_, testing::Not(HasSubstr("the kernel cannot reset this function")));
  EXPECT_THAT(out_, testing::Not(HasSubstr("0xffffff")));
}

// Two functions that share a group; the host uses the other one.
class TwinCommands : public BindingCommands {
 protected:
  TwinCommands() {
    device_ = "0000:01:00.0";
    files_["/sys/bus/pci/devices/0000:01:00.1/sriov_numvfs"] = "2\n";
  }
  static void expect_no_bind(const std::string& remedy) {
    EXPECT_THAT(remedy, HasSubstr("0000:01:00.1 must keep its driver: it has 2 virtual functions"));
    EXPECT_THAT(remedy, testing::Not(HasSubstr("postern bind")));
  }
};

TEST_F(TwinCommands, ResetAndCheckDoNotAdviseToTakeWhatMustStay) {
  ASSERT_TRUE(run(bind_command));
  const auto refused = run(reset_command, {"--backend", "type1"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  expect_no_bind(words_of(refused.error().remedies()));
  ASSERT_EQ(run(check_command, {"--memory", "4K"}).value(), Ending::problem);
  expect_no_bind(out_);
  ASSERT_TRUE(run(show_command));
  expect_no_bind(out_);
}

TEST_F(TwinCommands, ResetAndCheckOfAnUnboundDeviceDoNotAdviseToBindItForNothing) {
  for (const Command* command : {&reset_command, &check_command}) {
    const auto refused = run(*command);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENODEV);
    expect_no_bind(words_of(refused.error().remedies()));
  }
}

TEST_F(TwinCommands, WhatNobodyUsesGoesWithTheDevice) {
  files_.clear();
  EXPECT_EQ(words_of(run(check_command).error().remedies()),
            "\"postern bind 0000:01:00.0\"; a group is passed through as a whole: \"postern bind 0000:01:00.1\"");
  ASSERT_TRUE(run(bind_command));
  EXPECT_EQ(words_of(run(reset_command, {"--backend", "type1"}).error().remedies()),
            "a group is passed through as a whole: \"postern bind 0000:01:00.1\"");
}

TEST_F(BindingCommands, CheckOfAnUnboundDeviceThatIsUsedSaysThatFirst) {
  has_virtual_functions();
  const auto refused = run(check_command);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().reason(), HasSubstr("2 virtual functions"));
  EXPECT_EQ(words_of(refused.error().remedies()), "stop that use first, then \"postern bind 0000:00:02.0\"");
}

TEST_F(BindingCommands, ABridgeIsNotToBeBound) {
  device_ = "0000:00:03.0";
  for (const Command* command : {&reset_command, &check_command}) {
    const auto refused = run(*command);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENODEV);
    EXPECT_THAT(refused.error().reason(), HasSubstr("VFIO does not pass bridges through"));
    EXPECT_EQ(words_of(refused.error().remedies()), "pass the devices behind it through, each on its own");
  }
  ASSERT_TRUE(run(show_command));
  EXPECT_THAT(out_, HasSubstr("VFIO does not pass bridges through"));
  EXPECT_THAT(out_, testing::Not(HasSubstr("postern bind")));
}

TEST_F(BindingCommands, UnbindRefusesADeviceInUseToo) {
  ASSERT_TRUE(run(bind_command));
  has_virtual_functions();
  const auto refused = run(unbind_command);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_EQ(refused.error().operation(), "unbind");
  EXPECT_EQ(driver(), "vfio-pci");
  ASSERT_TRUE(run(unbind_command, {"--force"}));
  EXPECT_THAT(err_, HasSubstr("this host loses its 2 virtual functions"));
  EXPECT_EQ(driver(), "nvme");
}

TEST_F(BindingCommands, WhatIsLostIsInJsonToo) {
  has_virtual_functions();
  format_ = Format::json;
  ASSERT_TRUE(run(bind_command, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
  ASSERT_TRUE(run(reset_command, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
  ASSERT_TRUE(run(check_command, {"--force", "--memory", "4K"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
  ASSERT_TRUE(run(unbind_command, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
}

// Opening a FIFO would block forever.
TEST_F(BindingCommands, AFifoIsNoRecordedBinding) {
  ASSERT_TRUE(run(bind_command));
  const std::string recorded = folder_ + "/" + name + ".json";
  std::filesystem::remove(recorded);
  ASSERT_EQ(::mkfifo(recorded.c_str(), 0600), 0);
  const auto refused = run(unbind_command);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(driver(), "vfio-pci");
}

// A limit on the size of files makes the same calls fail as a full disk.
TEST_F(BindingCommands, BindThatCannotRecordChangesNothing) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  const auto refused = run(bind_command);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EFBIG);
  EXPECT_THAT(refused.error().object(), HasSubstr(folder_));
  EXPECT_EQ(driver(), "nvme");
  for (const auto& left : std::filesystem::directory_iterator(folder_))
    EXPECT_EQ(left.path().extension(), ".lock") << left.path();
  EXPECT_TRUE(run(bind_command)) << "once there is room";
}

TEST_F(BindingCommands, BindRefusesWhatAnotherPosternIsAt) {
  const RecordedBindings bindings(folder_);
  const auto lock = bindings.lock(name);
  ASSERT_TRUE(lock);
  EXPECT_EQ(run(bind_command).error().code(), EBUSY);
  EXPECT_EQ(run(unbind_command).error().code(), EBUSY);
  EXPECT_EQ(driver(), "nvme");
}

TEST_F(BindingCommands, UnbindGivesADeviceBackAndLeavesNothing) {
  ASSERT_TRUE(run(bind_command));
  ASSERT_TRUE(run(unbind_command));
  EXPECT_EQ(driver(), "nvme");
  EXPECT_FALSE(RecordedBindings(folder_).find(name)->has_value());
}

TEST_F(BindingCommands, UnbindIgnoresTheRecordOfAnotherDevice) {
  ASSERT_TRUE(run(bind_command));
  const RecordedBindings bindings(folder_);
  ASSERT_TRUE(bindings.record(
      {.bus = "pci", .device = name, .driver = std::nullopt, .driver_override = {}, .ids = "8086:1533 8086:0001"}));
  ASSERT_TRUE(run(unbind_command));
  EXPECT_EQ(driver(), "nvme") << "that the other one had no driver is nothing to this one";
  EXPECT_FALSE(bindings.find(name)->has_value());
}

TEST_F(BindingCommands, BindRecordsTheDeviceThatIsThereNow) {
  const RecordedBindings bindings(folder_);
  ASSERT_TRUE(bindings.record(
      {.bus = "pci", .device = name, .driver = "nvme", .driver_override = {}, .ids = "8086:1533 8086:0001"}));
  ASSERT_TRUE(run(bind_command));
  EXPECT_EQ(bindings.find(name)->value().ids, "1b36:0010 1b36:0010");
}

}  // namespace binding_commands_test
}  // namespace postern::tool
