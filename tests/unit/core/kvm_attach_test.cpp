// SPDX-License-Identifier: Apache-2.0
// AttachOptions::kvm: KVM is told of a device's cdev or group before the device is opened, once, and that it has gone.
#include <gmock/gmock.h>
#include <linux/kvm.h>
#include <linux/vfio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <mutex>
#include <postern-sim/faults.hpp>
#include <postern-sim/kernel.hpp>
#include <postern/attach.hpp>
#include <postern/guest_memory.hpp>
#include <postern/kvm.hpp>
#include <postern/pci_function.hpp>
#include <set>

#include "support/host_devices.hpp"

namespace postern {
namespace kvm_attach_test {

using test::Bound;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A simulated kernel with KVM devices, each an eventfd. Lists what concerns them, in order. Devices that are attached
// at once are opened by several threads.
class KvmHost final : public sim::FailingKernel {
 public:
  explicit KvmHost(Kernel& kernel) : FailingKernel(kernel) {}

  [[nodiscard]] std::shared_ptr<const KvmVfioDevice> make_kvm() {
    Fd device(*this, eventfd());
    const std::lock_guard lock(mutex_);
    kvms[device.get()];
    return std::make_shared<const KvmVfioDevice>(KvmVfioDevice::adopt(std::move(device)).value());
  }

  int open(const char* path, int flags) override {
    const int fd = FailingKernel::open(path, flags);
    const std::lock_guard lock(mutex_);
    if (fd >= 0) paths_[fd] = path;
    return fd;
  }
  int close(int fd) override {
    const std::lock_guard lock(mutex_);
    for (const auto& [kvm, files] : kvms) {
      EXPECT_FALSE(files.contains(fd) && ::getpid() == process_) << "KVM would keep it open";
    }
    kvms.erase(fd);
    paths_.erase(fd);
    return FailingKernel::close(fd);
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    if (request == KVM_SET_DEVICE_ATTR) return set(fd, *static_cast<kvm_device_attr*>(argument));
    const int result = FailingKernel::ioctl(fd, request, argument);
    const std::lock_guard lock(mutex_);
    if (request == VFIO_DEVICE_BIND_IOMMUFD || request == VFIO_GROUP_GET_DEVICE_FD) {
      events.push_back(result < 0 ? "fails" : "opens");
    }
    return result;
  }

  std::map<int, std::set<int>> kvms;  // what each knows
  std::vector<std::string> events;
  int answer = 0;  // to adding

 private:
  int set(int kvm, const kvm_device_attr& attr) {
    const int file = *reinterpret_cast<const std::int32_t*>(attr.addr);  // NOLINT(performance-no-int-to-ptr)
    const std::lock_guard lock(mutex_);
    auto& files = kvms.at(kvm);
    if (attr.attr == KVM_DEV_VFIO_GROUP_DEL) {
      events.emplace_back("removes");
      return files.erase(file) == 1 ? 0 : -ENOENT;
    }
    if (answer < 0) return answer;
    EXPECT_THAT(paths_[file], HasSubstr("/dev/vfio/"));
    events.emplace_back("adds");
    return files.insert(file).second ? 0 : -EEXIST;
  }

  const pid_t process_ = ::getpid();
  std::map<int, std::string> paths_;
  std::mutex mutex_;
};

class KvmAttach : public ::testing::TestWithParam<std::string_view> {
 protected:
  ~KvmAttach() override {
    for (const auto& [kvm, files] : kernel_.kvms) EXPECT_THAT(files, IsEmpty()) << "KVM was not told";
  }
  [[nodiscard]] HostDevice host(std::uint8_t device) {
    return find_pci_function(kernel_, {.device = device}).value().host;
  }
  [[nodiscard]] AttachOptions options(std::shared_ptr<Container> container = nullptr) const {
    return {.backend = GetParam(), .container = std::move(container), .kvm = kvm_};
  }
  static bool by_group() { return GetParam() != "iommufd"; }

  sim::Kernel simulated_;
  KvmHost kernel_{simulated_};
  std::shared_ptr<const KvmVfioDevice> kvm_ = kernel_.make_kvm();
};

TEST_P(KvmAttach, TellsItBeforeTheDeviceIsOpenedAndAfterItIsDetached) {
  auto device = attach(kernel_, host(1), options());
  ASSERT_TRUE(device) << device.error().message();
  EXPECT_THAT(kernel_.events, ElementsAre("adds", "opens"));
  ASSERT_TRUE(device->detach());
  EXPECT_THAT(kernel_.events, ElementsAre("adds", "opens", "removes"));
}

TEST_P(KvmAttach, TellsItThatAFailedAttachHasNoDevice) {
  kernel_.refuse = [](unsigned long request, void*) {
    return request == VFIO_DEVICE_BIND_IOMMUFD || request == VFIO_GROUP_GET_DEVICE_FD ? -EIO : 0;
  };
  EXPECT_FALSE(attach(kernel_, host(1), options()));
  EXPECT_THAT(kernel_.events, ElementsAre("adds", "fails", "removes"));
}

TEST_P(KvmAttach, OpensNoDeviceThatItRefuses) {
  kernel_.answer = -EPERM;
  const auto refused = attach(kernel_, host(1), options());
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), EPERM);
  EXPECT_EQ(refused.error().operation(), "KVM_SET_DEVICE_ATTR");
  EXPECT_THAT(kernel_.events, IsEmpty());
  kernel_.answer = 0;
  EXPECT_TRUE(attach(kernel_, host(1), options())) << "nothing is left of the first";
}

TEST_P(KvmAttach, LeavesWhatSomebodyElseHasAdded) {
  kernel_.answer = -EEXIST;
  auto device = attach(kernel_, host(1), options());
  ASSERT_TRUE(device) << device.error().message();
  ASSERT_TRUE(device->detach());
  EXPECT_THAT(kernel_.events, ElementsAre("opens"));
}

// The functions of one slot: of one group, and each with a cdev.
TEST_P(KvmAttach, TellsItOfAGroupOnceForAllItsDevices) {
  const Bound bound_a({.bus = 1}, kernel_);
  const Bound bound_b({.bus = 1, .function = 1}, kernel_);
  const std::array hosts = {bound_a.host(), bound_b.host()};
  ASSERT_EQ(hosts[0].iommu_group, hosts[1].iommu_group);
  auto both = attach_all(kernel_, hosts, options());
  ASSERT_TRUE(both) << both.error().message();
  EXPECT_EQ(kernel_.kvms.begin()->second.size(), by_group() ? 1U : 2U);
  ASSERT_TRUE(both->front().detach());
  EXPECT_EQ(kernel_.kvms.begin()->second.size(), 1U) << "the other one is still there";
}

TEST_P(KvmAttach, TellsEachVmOfItsOwnDevicesOfOneGroup) {
  const Bound bound_a({.bus = 1}, kernel_);
  const Bound bound_b({.bus = 1, .function = 1}, kernel_);
  const auto first = attach(kernel_, bound_a.host(), {.backend = GetParam()});
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_THAT(kernel_.events, ElementsAre("opens"));
  auto second = attach(kernel_, bound_b.host(), options(first->container()));
  ASSERT_TRUE(second) << second.error().message();
  EXPECT_THAT(kernel_.events, ElementsAre("opens", "adds", "opens"));
  ASSERT_TRUE(second->detach());
  EXPECT_THAT(kernel_.events, ElementsAre("opens", "adds", "opens", "removes"));
}

TEST_P(KvmAttach, IsKeptByTheDevice) {
  auto device = attach(kernel_, host(1), options());
  ASSERT_TRUE(device) << device.error().message();
  kvm_.reset();
  EXPECT_EQ(kernel_.kvms.size(), 1U) << "its descriptor is open";
  ASSERT_TRUE(device->detach());
  EXPECT_TRUE(kernel_.kvms.empty());
}

TEST_P(KvmAttach, IsToldByAGuestsMemory) {
  GuestMemory memory(kernel_, {.backend = GetParam(), .kvm = kvm_});
  for (const std::uint8_t device : {std::uint8_t{1}, std::uint8_t{4}}) {
    kernel_.events.clear();
    const auto attached = memory.attach(host(device));
    ASSERT_TRUE(attached) << attached.error().message();
    EXPECT_THAT(kernel_.events, ElementsAre("adds", "opens"));
  }
}

TEST_P(KvmAttach, IsNotChangedByAChild) {
  auto device = attach(kernel_, host(1), options());
  ASSERT_TRUE(device) << device.error().message();
  const pid_t child = ::fork();
  if (child == 0) {
    { const Device copy = std::move(*device); }
    ::_exit(kernel_.events.size() == 2 ? 0 : 1);  // in a simulated kernel even the KVM devices are its own copies
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << "the child removed a device of its parent's";
}

INSTANTIATE_TEST_SUITE_P(Backends, KvmAttach, ::testing::Values("type1", "iommufd"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace kvm_attach_test
}  // namespace postern
