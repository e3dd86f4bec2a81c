// SPDX-License-Identifier: Apache-2.0
// bind, unbind, reset and doctor on a simulated host of which this host uses a device.
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

#include "host/remembered.hpp"
#include "verb.hpp"

namespace postern::tool {
namespace binding_verbs_test {

using ::testing::HasSubstr;

const std::string name = "0000:00:02.0";

// Some of whose nodes cannot be opened, which access(2) does not know.
class OverlaidKernel : public sim::FailingKernel {
 public:
  using sim::FailingKernel::FailingKernel;
  std::map<std::string, int> opens;  // negated errnos
  int open(const char* path, int flags) override {
    const auto found = opens.find(path);
    return found == opens.end() ? sim::FailingKernel::open(path, flags) : found->second;
  }
};

class BindingVerbs : public testing::Test {
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

  // The verb on the device. What it prints is in out_ and err_ then.
  Result<Ending> run(const Verb& verb, std::vector<std::string> arguments = {}) {
    CLI::App app;
    const auto runner = verb.add(app);
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
  // As one that has lost its power: the kernel finds no way to reset it.
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
  std::map<std::string, std::string> files_;  // in place of the simulated kernel's
  Format format_ = Format::text;
  std::string device_ = name;
  std::string folder_;
  std::string out_;
  std::string err_;
};

TEST_F(BindingVerbs, BindRefusesADeviceInUseAndForceSaysWhatIsLost) {
  has_virtual_functions();
  const auto refused = run(bind_verb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_THAT(refused.error().reason(), HasSubstr("2 virtual functions"));
  EXPECT_EQ(driver(), "nvme");
  ASSERT_TRUE(run(bind_verb, {"--force"}));
  EXPECT_THAT(err_, HasSubstr("lost with it: its 2 virtual functions"));
  EXPECT_EQ(driver(), "vfio-pci");
}

TEST_F(BindingVerbs, DoctorSaysWhatBindSays) {
  has_virtual_functions();
  EXPECT_EQ(run(doctor_verb).value(), Ending::not_well);
  EXPECT_THAT(out_, HasSubstr("NO  in use"));
  EXPECT_THAT(out_, HasSubstr("2 virtual functions"));
}

TEST_F(BindingVerbs, NobodyElseCanBeOnASimulatedHost) {
  EXPECT_EQ(run(doctor_verb).value(), Ending::not_well) << "it is not bound";
  EXPECT_THAT(out_, testing::ContainsRegex("ok  in use +by nobody"));
}

TEST_F(BindingVerbs, ResetRefusesADeviceInUseToo) {
  ASSERT_TRUE(run(bind_verb));
  has_virtual_functions();
  const auto refused = run(reset_verb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_EQ(refused.error().operation(), "reset");
  ASSERT_TRUE(run(reset_verb, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("reset by flr"));
}

TEST_F(BindingVerbs, CheckRefusesADeviceInUseToo) {
  ASSERT_TRUE(run(bind_verb));
  has_virtual_functions();
  const auto refused = run(check_verb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_EQ(refused.error().operation(), "check");
  EXPECT_EQ(run(check_verb, {"--force", "--memory", "4K"}).value(), Ending::well) << out_;
  EXPECT_THAT(err_, HasSubstr("lost with it: its 2 virtual functions"));
}

TEST_F(BindingVerbs, ABackendThatIsNotToldToAcceptUnsafeInterruptsIsSkippedAndAnotherTaken) {
  ASSERT_TRUE(run(bind_verb));
  files_["/proc/interrupts"] = "            CPU0\n   2:         11     IO-APIC    2-edge      timer\n";
  files_["/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts"] = "Y\n";
  EXPECT_EQ(run(doctor_verb).value(), Ending::well) << out_;
  EXPECT_THAT(out_, HasSubstr("--  backend iommufd"));
  EXPECT_EQ(run(check_verb, {"--memory", "4K"}).value(), Ending::well) << out_;
  EXPECT_THAT(out_, HasSubstr("interrupts of this device cannot be isolated"));
  EXPECT_THAT(out_, testing::Not(HasSubstr("failed:")));
  EXPECT_EQ(run(check_verb, {"--memory", "4K", "--backend", "auto"}).value(), Ending::well) << out_;
  EXPECT_THAT(out_, HasSubstr("passes through with type1"));
}

TEST_F(BindingVerbs, DoctorResetAndCheckAgreeOnACdevThatTheDeviceCgroupForbids) {
  ASSERT_TRUE(run(bind_verb));
  kernel_.opens[cdev()] = -EPERM;
  EXPECT_EQ(run(doctor_verb).value(), Ending::well) << out_;
  EXPECT_THAT(out_, HasSubstr("--  backend iommufd"));
  EXPECT_EQ(run(reset_verb).value(), Ending::well);
  EXPECT_EQ(run(check_verb, {"--memory", "4K"}).value(), Ending::well) << out_;
  EXPECT_THAT(out_, HasSubstr("device cgroup"));
  EXPECT_EQ(run(check_verb, {"--memory", "4K", "--backend", "auto"}).value(), Ending::well) << out_;
  kernel_.opens["/dev/vfio/vfio"] = -EPERM;
  EXPECT_EQ(run(doctor_verb).value(), Ending::not_well) << out_;
  EXPECT_FALSE(run(reset_verb));
  EXPECT_FALSE(run(check_verb, {"--memory", "4K"}));
}

TEST_F(BindingVerbs, ResetOfADeviceThatDoesNotAnswerSaysSoAndWhatToTry) {
  ASSERT_TRUE(run(bind_verb));
  does_not_answer();
  const auto refused = run(reset_verb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EIO);
  EXPECT_THAT(refused.error().reason(), HasSubstr("does not answer"));
  EXPECT_THAT(refused.error().remedy(), HasSubstr("pci/rescan"));
  EXPECT_THAT(refused.error().remedy(), testing::Not(HasSubstr("--bus")));
}

TEST_F(BindingVerbs, ResetOfTheBusOfADeviceThatDoesNotAnswerSaysSoBesideTheKernelsErrno) {
  ASSERT_TRUE(run(bind_verb));
  does_not_answer();
  const auto refused = run(reset_verb, {"--bus"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ENODEV) << "it is on a root bus";
  EXPECT_THAT(refused.error().reason(), HasSubstr("does not answer"));
  EXPECT_THAT(refused.error().remedy(), HasSubstr("pci/rescan"));
}

TEST_F(BindingVerbs, CheckOfADeviceThatDoesNotAnswerSaysSoInTheSameWords) {
  ASSERT_TRUE(run(bind_verb));
  does_not_answer();
  EXPECT_EQ(run(check_verb, {"--memory", "4K"}).value(), Ending::not_well);
  EXPECT_THAT(out_, HasSubstr("does not answer"));
  EXPECT_THAT(out_, HasSubstr("pci/rescan"));
  EXPECT_THAT(out_, testing::Not(HasSubstr("no reset of its own")));
  EXPECT_THAT(out_, testing::Not(HasSubstr("0xffffff")));
}

// Two functions that share a group, of which this host uses the other.
class TwinVerbs : public BindingVerbs {
 protected:
  TwinVerbs() {
    device_ = "0000:01:00.0";
    files_["/sys/bus/pci/devices/0000:01:00.1/sriov_numvfs"] = "2\n";
  }
  static void expect_no_bind(const std::string& remedy) {
    EXPECT_THAT(remedy, HasSubstr("here must stay (0000:01:00.1: it has 2 virtual functions"));
    EXPECT_THAT(remedy, testing::Not(HasSubstr("postern bind")));
  }
};

TEST_F(TwinVerbs, ResetAndCheckDoNotAdviseToTakeWhatMustStay) {
  ASSERT_TRUE(run(bind_verb));
  const auto refused = run(reset_verb, {"--backend", "type1"});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  expect_no_bind(refused.error().remedy());
  ASSERT_EQ(run(check_verb, {"--memory", "4K"}).value(), Ending::not_well);
  expect_no_bind(out_);
  ASSERT_TRUE(run(show_verb));
  expect_no_bind(out_);
}

TEST_F(TwinVerbs, ResetAndCheckOfAnUnboundDeviceDoNotAdviseToBindItForNothing) {
  for (const Verb* verb : {&reset_verb, &check_verb}) {
    const auto refused = run(*verb);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENODEV);
    expect_no_bind(refused.error().remedy());
  }
}

TEST_F(TwinVerbs, WhatNobodyUsesGoesWithTheDevice) {
  files_.clear();
  EXPECT_EQ(run(check_verb).error().remedy(),
            "\"postern bind 0000:01:00.0\"; the group goes as a whole: \"postern bind 0000:01:00.1\"");
  ASSERT_TRUE(run(bind_verb));
  EXPECT_EQ(run(reset_verb, {"--backend", "type1"}).error().remedy(),
            "the group goes as a whole: \"postern bind 0000:01:00.1\"");
}

TEST_F(BindingVerbs, CheckOfAnUnboundDeviceThatIsUsedSaysThatFirst) {
  has_virtual_functions();
  const auto refused = run(check_verb);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().reason(), HasSubstr("2 virtual functions"));
  EXPECT_EQ(refused.error().remedy(), "end that first, then \"postern bind 0000:00:02.0\"");
}

TEST_F(BindingVerbs, ABridgeIsNotToBeBound) {
  device_ = "0000:00:03.0";
  for (const Verb* verb : {&reset_verb, &check_verb}) {
    const auto refused = run(*verb);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code(), ENODEV);
    EXPECT_THAT(refused.error().reason(), HasSubstr("VFIO does not pass bridges through"));
    EXPECT_EQ(refused.error().remedy(), "pass the devices behind it through, each on its own");
  }
  ASSERT_TRUE(run(show_verb));
  EXPECT_THAT(out_, HasSubstr("VFIO does not pass bridges through"));
  EXPECT_THAT(out_, testing::Not(HasSubstr("postern bind")));
}

// A full disk, by a limit on the size of files: the same calls fail.
TEST_F(BindingVerbs, UnbindRefusesADeviceInUseToo) {
  ASSERT_TRUE(run(bind_verb));
  has_virtual_functions();
  const auto refused = run(unbind_verb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EBUSY);
  EXPECT_EQ(refused.error().operation(), "unbind");
  EXPECT_EQ(driver(), "vfio-pci");
  ASSERT_TRUE(run(unbind_verb, {"--force"}));
  EXPECT_THAT(err_, HasSubstr("lost with it: its 2 virtual functions"));
  EXPECT_EQ(driver(), "nvme");
}

TEST_F(BindingVerbs, WhatIsLostIsInJsonToo) {
  has_virtual_functions();
  format_ = Format::json;
  ASSERT_TRUE(run(bind_verb, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
  ASSERT_TRUE(run(reset_verb, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
  ASSERT_TRUE(run(check_verb, {"--force", "--memory", "4K"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
  ASSERT_TRUE(run(unbind_verb, {"--force"}));
  EXPECT_THAT(out_, HasSubstr("\"lost\": \"its 2 virtual functions"));
}

// It would wait for a writer for ever.
TEST_F(BindingVerbs, AFifoIsNoRememberedBinding) {
  ASSERT_TRUE(run(bind_verb));
  const std::string remembered = folder_ + "/" + name + ".json";
  std::filesystem::remove(remembered);
  ASSERT_EQ(::mkfifo(remembered.c_str(), 0600), 0);
  const auto refused = run(unbind_verb);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EINVAL);
  EXPECT_EQ(driver(), "vfio-pci");
}

TEST_F(BindingVerbs, BindThatCannotRememberChangesNothing) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &none), 0);
  const auto refused = run(bind_verb);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EFBIG);
  EXPECT_THAT(refused.error().object(), HasSubstr(folder_));
  EXPECT_EQ(driver(), "nvme");
  for (const auto& left : std::filesystem::directory_iterator(folder_))
    EXPECT_EQ(left.path().extension(), ".lock") << left.path();
  EXPECT_TRUE(run(bind_verb)) << "once there is room";
}

TEST_F(BindingVerbs, BindRefusesWhatAnotherPosternIsAt) {
  const RememberedBindings bindings(folder_);
  const auto lock = bindings.lock(name);
  ASSERT_TRUE(lock);
  EXPECT_EQ(run(bind_verb).error().code(), EBUSY);
  EXPECT_EQ(run(unbind_verb).error().code(), EBUSY);
  EXPECT_EQ(driver(), "nvme");
}

TEST_F(BindingVerbs, UnbindGivesADeviceBackAndLeavesNothing) {
  ASSERT_TRUE(run(bind_verb));
  ASSERT_TRUE(run(unbind_verb));
  EXPECT_EQ(driver(), "nvme");
  EXPECT_FALSE(RememberedBindings(folder_).recall(name)->has_value());
}

TEST_F(BindingVerbs, UnbindUsesNothingThatIsRememberedOfAnotherDevice) {
  ASSERT_TRUE(run(bind_verb));
  const RememberedBindings bindings(folder_);
  ASSERT_TRUE(bindings.remember(
      {.bus = "pci", .device = name, .driver = std::nullopt, .driver_override = {}, .ids = "8086:1533 8086:0001"}));
  ASSERT_TRUE(run(unbind_verb));
  EXPECT_EQ(driver(), "nvme") << "that the other one had no driver is nothing to this one";
  EXPECT_FALSE(bindings.recall(name)->has_value());
}

TEST_F(BindingVerbs, BindRemembersTheDeviceThatIsThereNow) {
  const RememberedBindings bindings(folder_);
  ASSERT_TRUE(bindings.remember(
      {.bus = "pci", .device = name, .driver = "nvme", .driver_override = {}, .ids = "8086:1533 8086:0001"}));
  ASSERT_TRUE(run(bind_verb));
  EXPECT_EQ(bindings.recall(name)->value().ids, "1b36:0010 1b36:0010");
}

}  // namespace binding_verbs_test
}  // namespace postern::tool
