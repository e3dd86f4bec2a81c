// SPDX-License-Identifier: Apache-2.0
// KvmVfioDevice with a virtual machine of the guest's KVM, and groups and devices of its VFIO.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/kvm.h>

#include <postern/kvm.hpp>

#include "guest/x86_64/devices.hpp"

namespace postern {
namespace kvm_test {

using test::Bound;

class KvmOnKernel : public ::testing::TestWithParam<const char*> {
 protected:
  static int must(int result) {
    EXPECT_GE(result, 0);
    return result;
  }
  static Fd open(const std::string& path) {
    return {system_kernel(), must(system_kernel().open(path.c_str(), O_RDWR))};
  }
  static Fd make_vm(const Fd& kvm) {
    return {system_kernel(), must(system_kernel().ioctl(kvm.get(), KVM_CREATE_VM, nullptr))};
  }

  const Fd kvm_ = open("/dev/kvm");
  const Fd vm_ = make_vm(kvm_);
  const Bound bound_{test::nvme_disk};
};

TEST_P(KvmOnKernel, TakesADeviceOnce) {
  const auto device = KvmVfioDevice::create(system_kernel(), vm_.get());
  ASSERT_TRUE(device) << device.error().message();
  const auto disk = attach(system_kernel(), bound_.host(), {.backend = GetParam()}).value();
  ASSERT_TRUE(device->add(disk.fd()));
  EXPECT_EQ(device->add(disk.fd()).error().code(), EEXIST);
  EXPECT_TRUE(device->remove(disk.fd()));
  EXPECT_EQ(device->remove(disk.fd()).error().code(), ENOENT);
  EXPECT_EQ(device->add(open("/dev/null").get()).error().code(), EINVAL);
  EXPECT_EQ(device->add(999).error().code(), EBADF);
}

TEST_P(KvmOnKernel, IsToldByAttachAndByDetach) {
  const auto device = std::make_shared<const KvmVfioDevice>(KvmVfioDevice::create(system_kernel(), vm_.get()).value());
  for (int round = 0; round < 2; ++round) {  // a file that KVM kept would be open, and another open of its node EBUSY
    auto disk = attach(system_kernel(), bound_.host(), {.backend = GetParam(), .kvm = device});
    ASSERT_TRUE(disk) << disk.error().message();
    if (std::string_view(GetParam()) == "iommufd") {
      EXPECT_EQ(device->add(disk->fd()).error().code(), EEXIST) << "with type1 KVM has the group's file";
    }
    ASSERT_TRUE(disk->detach());
  }
}

TEST_P(KvmOnKernel, HasOneDeviceForEachVm) {
  const auto device = KvmVfioDevice::create(system_kernel(), vm_.get()).value();
  EXPECT_EQ(KvmVfioDevice::create(system_kernel(), vm_.get()).error().code(), EBUSY);
  const Fd other = make_vm(kvm_);
  EXPECT_TRUE(KvmVfioDevice::create(system_kernel(), other.get()));
  EXPECT_EQ(KvmVfioDevice::create(system_kernel(), open("/dev/null").get()).error().code(), ENOTTY);
}

INSTANTIATE_TEST_SUITE_P(Backends, KvmOnKernel, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace kvm_test
}  // namespace postern
