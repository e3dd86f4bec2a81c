// SPDX-License-Identifier: Apache-2.0
// The requirements of backends: an attach checks each once, and requirements() reports all of them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>

#include <algorithm>
#include <map>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/forwarding_kernel.hpp>

namespace postern {
namespace requirement_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Counts the calls on each file and ioctl, and hides paths and extensions.
class AskedKernel : public ForwardingKernel {
 public:
  using ForwardingKernel::ForwardingKernel;

  std::map<std::string, int> questions;
  std::map<std::string, int> opens;     // results of open(2) to return instead
  std::set<std::string> absent;         // paths to hide
  std::set<std::uintptr_t> extensions;  // extensions to hide

  int open(const char* path, int flags) override {
    ++questions[std::string("open ") + path];
    if (absent.count(path) != 0) return -ENOENT;
    const auto other = opens.find(path);
    return other != opens.end() ? other->second : ForwardingKernel::open(path, flags);
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request == VFIO_GET_API_VERSION) ++questions["VFIO_GET_API_VERSION"];
    if (request == VFIO_CHECK_EXTENSION) {
      const auto extension = reinterpret_cast<std::uintptr_t>(argument);
      ++questions["VFIO_CHECK_EXTENSION " + std::to_string(extension)];
      if (extensions.count(extension) != 0) return 0;
    }
    return ForwardingKernel::ioctl(fd, request, argument);
  }
  int read_file(const std::string& path, std::string& contents) override {
    ++questions["read " + path];
    return ForwardingKernel::read_file(path, contents);
  }
  int list_directory(const std::string& path, std::vector<std::string>& names) override {
    ++questions["list " + path];
    return ForwardingKernel::list_directory(path, names);
  }
  int read_link(const std::string& path, std::string& target) override {
    ++questions["readlink " + path];
    return ForwardingKernel::read_link(path, target);
  }
  int status(const std::string& path, FileStatus& status) override {
    ++questions["stat " + path];
    return absent.count(path) != 0 ? -ENOENT : ForwardingKernel::status(path, status);
  }
  int access(const std::string& path, int mode) override {
    ++questions["access " + path];
    return absent.count(path) != 0 ? -ENOENT : ForwardingKernel::access(path, mode);
  }
};

class OnHost : public ::testing::Test {
 protected:
  explicit OnHost(const std::string& host = "sim", const std::string& address = "0000:00:01.0")
      : simulated_(sim::find_host(host).value()),
        kernel(simulated_),
        device(find_host_device(simulated_, "pci", address).value()) {}

  [[nodiscard]] std::vector<std::string> keys(std::string_view backend, const HostDevice* of) {
    std::vector<std::string> keys;
    for (const RequirementState& state : find_backend(backend).value()->requirements(kernel, of)) {
      keys.emplace_back(state.key);
      if (!state.found) keys.back() += " is missing";
    }
    return keys;
  }
  // The first requirement that is not met: probe() must report the same.
  [[nodiscard]] std::string first_missing(std::string_view backend) {
    for (const RequirementState& state : find_backend(backend).value()->requirements(kernel, &device)) {
      if (!state.found) return state.found.error().message();
    }
    return "";
  }
  [[nodiscard]] std::string probed(std::string_view backend) {
    const auto probed = find_backend(backend).value()->probe(kernel, &device);
    return probed ? "" : probed.error().message();
  }

 private:
  sim::Kernel simulated_;

 protected:
  AskedKernel kernel;
  HostDevice device;
};

class OnPower : public OnHost {
 protected:
  OnPower() : OnHost("sim:pseries", "0000:00:00.0") {}
};

void expect_each_asked_once(AskedKernel& kernel, const HostDevice& device, std::string_view backend) {
  kernel.questions.clear();
  const auto attached = attach(kernel, device, {.backend = backend});
  ASSERT_TRUE(attached) << attached.error().message();
  for (const auto& [question, times] : kernel.questions) EXPECT_EQ(times, 1) << backend << ": " << question;
}

TEST_F(OnHost, AnAttachAsksEachQuestionOnce) {
  expect_each_asked_once(kernel, device, "type1");
  EXPECT_EQ(kernel.questions["open /dev/vfio/vfio"], 1);
  EXPECT_EQ(kernel.questions["access /dev/vfio/1"], 1);
  EXPECT_EQ(kernel.questions["open /dev/vfio/1"], 1);
  EXPECT_EQ(kernel.questions["VFIO_CHECK_EXTENSION " + std::to_string(VFIO_TYPE1v2_IOMMU)], 1);
  for (const std::string_view backend : {"iommufd", "auto"}) {
    expect_each_asked_once(kernel, device, backend);
    EXPECT_EQ(kernel.questions["open /dev/iommu"], 1);
    for (const std::string question : {"open ", "access ", "stat "})
      EXPECT_EQ(kernel.questions[question + device.cdev->path], 1) << question;
    EXPECT_EQ(kernel.questions.count("open /dev/vfio/vfio"), 0U);
  }
}

TEST_F(OnHost, AnAttachWithTheOlderVersionAsksForEachOnce) {
  kernel.extensions = {VFIO_TYPE1v2_IOMMU};
  expect_each_asked_once(kernel, device, "type1");
  EXPECT_EQ(kernel.questions["VFIO_CHECK_EXTENSION " + std::to_string(VFIO_TYPE1v2_IOMMU)], 1);
  EXPECT_EQ(kernel.questions["VFIO_CHECK_EXTENSION " + std::to_string(VFIO_TYPE1_IOMMU)], 1);
}

TEST_F(OnPower, AnAttachAsksEachQuestionOnce) {
  if (!find_backend("spapr")) GTEST_SKIP() << "this build leaves it out";
  expect_each_asked_once(kernel, device, "spapr");
}

TEST_F(OnHost, EachBackendSaysWhatItNeeds) {
  EXPECT_THAT(keys("type1", &device),
              ElementsAre("container-node", "iommu-group", "driver", "group-node", "interface", "interrupt-isolation"));
  EXPECT_THAT(keys("iommufd", &device),
              ElementsAre("iommufd-node", "iommu-group", "driver", "cdev", "cdev-node", "interrupt-isolation"));
  EXPECT_THAT(keys("type1", nullptr), ElementsAre("container-node", "iommu", "interface", "interrupt-isolation"));
  EXPECT_THAT(keys("iommufd", nullptr), ElementsAre("iommufd-node", "iommu", "interrupt-isolation"));
}

TEST_F(OnHost, WhatWasFoundIsTold) {
  const auto states = find_backend("iommufd").value()->requirements(kernel, &device);
  EXPECT_EQ(states.at(0).title, "/dev/iommu");
  EXPECT_EQ(states.at(0).node, "/dev/iommu");
  EXPECT_FALSE(states.at(0).is_of_device);
  EXPECT_EQ(states.at(3).title, "VFIO cdev");
  EXPECT_EQ(states.at(3).node, "");
  EXPECT_TRUE(states.at(3).is_of_device);
  EXPECT_EQ(states.at(3).found, "vfio0");
  EXPECT_EQ(states.at(4).node, device.cdev->path);
  EXPECT_EQ(find_backend("type1").value()->requirements(kernel, &device).at(4).found, "version 2");
}

TEST_F(OnHost, TheRestIsLookedUpWhereSomethingIsMissing) {
  kernel.absent = {"/dev/vfio/1"};
  EXPECT_THAT(keys("type1", &device), ElementsAre("container-node", "iommu-group", "driver", "group-node is missing",
                                                  "interface", "interrupt-isolation"));
  kernel.absent = {"/dev/vfio/vfio"};
  EXPECT_THAT(keys("type1", &device),
              ElementsAre("container-node is missing", "iommu-group", "driver", "group-node", "interrupt-isolation"))
      << "the interface is asked for in the node";
  device.cdev.reset();
  EXPECT_THAT(keys("iommufd", &device),
              ElementsAre("iommufd-node", "iommu-group", "driver", "cdev is missing", "interrupt-isolation"));
}

TEST_F(OnHost, AProbeSaysWhatIsMissingFirstInTheSameWords) {
  kernel.absent = {"/dev/vfio/vfio", "/dev/iommu"};
  for (const std::string_view backend : {"type1", "iommufd"}) {
    EXPECT_THAT(probed(backend), HasSubstr("does not exist")) << backend;
    EXPECT_EQ(probed(backend), first_missing(backend));
  }
  kernel.absent.clear();
  kernel.extensions = {VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_IOMMU};
  EXPECT_THAT(probed("type1"), HasSubstr("modprobe vfio_iommu_type1"));
  EXPECT_EQ(probed("type1"), first_missing("type1"));
  kernel.extensions.clear();
  device.cdev->number.reset();
  EXPECT_THAT(probed("iommufd"), HasSubstr("CONFIG_VFIO_DEVICE_CDEV"));
  EXPECT_EQ(probed("iommufd"), first_missing("iommufd"));
  device.is_vfio = false;
  for (const std::string_view backend : {"type1", "iommufd"}) EXPECT_EQ(probed(backend), first_missing(backend));
}

TEST_F(OnHost, WhatComesWithTheDriverIsNotBound) {
  device.is_vfio = false;
  for (const std::string_view backend : {"type1", "iommufd"}) {
    for (const RequirementState& state : find_backend(backend).value()->requirements(kernel, &device)) {
      if (!state.found) {
        EXPECT_EQ(state.found.error().kind(), ErrorKind::not_bound) << state.key;
      }
    }
  }
}

TEST_F(OnHost, ANodeThatADeviceCgroupForbidsIsMissing) {
  kernel.opens = {{"/dev/vfio/1", -EPERM}, {device.cdev->path, -EPERM}};
  EXPECT_EQ(probed("type1"), "") << "access(2) does not know";
  EXPECT_THAT(first_missing("type1"), HasSubstr("device cgroup"));
  EXPECT_THAT(first_missing("iommufd"), HasSubstr("device cgroup"));
  kernel.opens = {{"/dev/vfio/1", -EBUSY}};
  EXPECT_EQ(first_missing("type1"), "") << "one that somebody has open is one that can be";
}

TEST_F(OnHost, ANodeThatIsAnotherDevicesIsMissing) {
  device.cdev->number = *device.cdev->number + 1;
  EXPECT_THAT(first_missing("iommufd"), HasSubstr("remove it, and let udev create it again"));
  EXPECT_THAT(attach(kernel, device, {.backend = "iommufd"}).error().message(), HasSubstr("another device's node"));
}

TEST_F(OnHost, OfAnotherProcessorsBackendNothingCanBeLoaded) {
  EXPECT_THAT(backends_for_processor(kernel).value(), ElementsAre("iommufd", "type1"));
  if (!find_backend("spapr")) GTEST_SKIP() << "this build leaves it out";
  EXPECT_THAT(probed("spapr"), AllOf(HasSubstr("spapr is not for this processor, which has iommufd, type1"),
                                     Not(HasSubstr("modprobe"))));
}

TEST_F(OnPower, OfAnotherProcessorsBackendNothingCanBeLoaded) {
  EXPECT_THAT(backends_for_processor(kernel).value(), ElementsAre("spapr"));
  for (const std::string_view backend : {"type1", "iommufd"}) {
    if (!find_backend(backend)) continue;
    EXPECT_EQ(find_backend(backend).value()->probe(kernel, &device).error().kind(), ErrorKind::unsupported);
    EXPECT_THAT(probed(backend),
                AllOf(HasSubstr("not for this processor, which has spapr"), Not(HasSubstr("modprobe"))));
  }
}

}  // namespace requirement_test
}  // namespace postern
