// SPDX-License-Identifier: Apache-2.0
// KvmVfioDevice on a fake kernel whose KVM behaves as measured on Linux 7.3.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/kvm.h>
#include <unistd.h>

#include <postern/forwarding_kernel.hpp>
#include <postern/kvm.hpp>
#include <set>

namespace postern {
namespace kvm_device_test {

using testing::HasSubstr;

constexpr int vm = 1000;
constexpr int group = 1001;
constexpr int cdev = 1002;
constexpr int null_device = 1003;
constexpr int kvm_device = 1004;

class KvmKernel : public ForwardingKernel {
 public:
  KvmKernel() : ForwardingKernel(system_kernel()) {}
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request == KVM_CREATE_DEVICE) return create(fd, *static_cast<kvm_create_device*>(argument));
    if (request == KVM_SET_DEVICE_ATTR) return set(fd, *static_cast<kvm_device_attr*>(argument));
    return -ENOTTY;
  }
  int close(int fd) override {
    if (fd != kvm_device) return ForwardingKernel::close(fd);
    files.clear();
    has_device = false;
    return 0;
  }

  bool is_built_in = true;
  bool has_device = false;
  std::set<int> files;

 private:
  int create(int fd, kvm_create_device& device) {
    if (fd != vm) return -ENOTTY;
    if (device.type != KVM_DEV_TYPE_VFIO || !is_built_in) return -ENODEV;
    if (device.flags != 0) return -EINVAL;
    if (std::exchange(has_device, true)) return -EBUSY;
    device.fd = kvm_device;
    return 0;
  }
  int set(int fd, const kvm_device_attr& attr) {
    if (fd != kvm_device) return -ENOTTY;
    if (attr.flags != 0 || attr.group != 1) return -ENXIO;
    const int file = *reinterpret_cast<const std::int32_t*>(attr.addr);  // NOLINT(performance-no-int-to-ptr)
    if (file != group && file != cdev && file != null_device) return -EBADF;
    if (attr.attr == 1) {
      if (file == null_device) return -EINVAL;
      return files.insert(file).second ? 0 : -EEXIST;
    }
    if (attr.attr == 2) return files.erase(file) == 1 ? 0 : -ENOENT;
    return -ENXIO;
  }
};

class KvmDevice : public testing::Test {
 protected:
  KvmKernel kernel_;
};

TEST_F(KvmDevice, AddsAndRemovesGroupsAndDevices) {
  const auto device = KvmVfioDevice::create(kernel_, vm).value();
  EXPECT_EQ(device.fd(), kvm_device);
  EXPECT_TRUE(device.add(group));
  EXPECT_TRUE(device.add(cdev));
  EXPECT_EQ(kernel_.files, (std::set<int>{group, cdev}));
  EXPECT_TRUE(device.remove(group));
  EXPECT_EQ(kernel_.files, (std::set<int>{cdev}));
}

TEST_F(KvmDevice, ClosesItsDescriptor) {
  { const auto device = KvmVfioDevice::create(kernel_, vm).value(); }
  EXPECT_FALSE(kernel_.has_device);
}

TEST_F(KvmDevice, IsOneOfAVmAndIsAdoptedWhereThereIsOne) {
  auto device = KvmVfioDevice::create(kernel_, vm).value();
  const auto second = KvmVfioDevice::create(kernel_, vm);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), EBUSY);
  EXPECT_EQ(second.error().operation(), "KVM_CREATE_DEVICE");
  EXPECT_THAT(second.error().message(), HasSubstr("adopt()"));
  // For a program that created the first one itself.
  const auto adopted = KvmVfioDevice::adopt(Fd(kernel_, kvm_device)).value();
  EXPECT_TRUE(adopted.add(group));
  const auto moved = std::move(device);
  EXPECT_EQ(device.add(group).error().code(), EBADF);  // NOLINT(bugprone-use-after-move): that is the point
  EXPECT_EQ(KvmVfioDevice::adopt({}).error().code(), EBADF);
}

TEST_F(KvmDevice, SaysWhyItCannotBeCreated) {
  const auto no_vm = KvmVfioDevice::create(kernel_, group);
  ASSERT_FALSE(no_vm);
  EXPECT_EQ(no_vm.error().code(), ENOTTY);
  EXPECT_EQ(no_vm.error().kind(), ErrorKind::invalid_argument);
  kernel_.is_built_in = false;
  const auto not_built = KvmVfioDevice::create(kernel_, vm);
  ASSERT_FALSE(not_built);
  EXPECT_EQ(not_built.error().code(), ENODEV);
  ASSERT_TRUE(not_built.error().remedies().contains(RemedyCode::use_kernel_with_option));
  EXPECT_EQ(not_built.error().remedy(), "use a kernel with CONFIG_KVM_VFIO");
}

TEST_F(KvmDevice, SaysWhyItRefusesAFile) {
  const auto device = KvmVfioDevice::create(kernel_, vm).value();
  ASSERT_TRUE(device.add(group));
  const auto again = device.add(group);
  EXPECT_EQ(again.error().code(), EEXIST);
  EXPECT_EQ(again.error().kind(), ErrorKind::already_exists);
  EXPECT_THAT(again.error().message(), HasSubstr("KVM_DEV_VFIO_FILE_ADD fd 1001: KVM_SET_DEVICE_ATTR: EEXIST"));
  EXPECT_EQ(device.remove(cdev).error().code(), ENOENT);
  EXPECT_EQ(device.add(null_device).error().code(), EINVAL);
  const auto not_open = device.add(999);
  EXPECT_EQ(not_open.error().code(), EBADF);
  EXPECT_EQ(not_open.error().kind(), ErrorKind::invalid_argument);
  const auto not_kvm = KvmVfioDevice::adopt(Fd(kernel_, ::dup(0))).value();
  EXPECT_EQ(not_kvm.add(group).error().kind(), ErrorKind::invalid_argument);
}

}  // namespace kvm_device_test
}  // namespace postern
