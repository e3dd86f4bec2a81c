// SPDX-License-Identifier: Apache-2.0
// An open group whose last function is unbound from vfio-pci.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/vfio.h>

#include <postern-sim/kernel.hpp>
#include <postern/fd.hpp>

namespace postern {
namespace group_test {

constexpr const char* group_node = "/dev/vfio/1";
constexpr const char* unbind = "/sys/bus/pci/drivers/vfio-pci/unbind";
constexpr const char* bind = "/sys/bus/pci/drivers/vfio-pci/bind";
constexpr const char* disk = "0000:00:01.0";

class SimulatedGroup : public ::testing::Test {
 protected:
  Fd open(const char* path) { return {kernel, kernel.open(path, 0)}; }
  int status(const Fd& group) {
    vfio_group_status status{};
    status.argsz = sizeof status;
    const int result = kernel.ioctl(group.get(), VFIO_GROUP_GET_STATUS, &status);
    return result < 0 ? result : static_cast<int>(status.flags);
  }
  int set_container(const Fd& group, const Fd& container) {
    int fd = container.get();
    return kernel.ioctl(group.get(), VFIO_GROUP_SET_CONTAINER, &fd);
  }

  sim::Kernel kernel;
};

TEST_F(SimulatedGroup, LeavesItsContainerAndIsOfNoMoreUse) {
  const Fd container = open("/dev/vfio/vfio");
  const Fd group = open(group_node);
  ASSERT_EQ(set_container(group, container), 0);
  ASSERT_EQ(kernel.ioctl(container.get(), VFIO_SET_IOMMU, reinterpret_cast<void*>(VFIO_TYPE1v2_IOMMU)), 0);
  ASSERT_EQ(kernel.write_file(unbind, disk), 0);
  EXPECT_EQ(status(group), -ENODEV);
  EXPECT_EQ(set_container(group, container), -ENODEV);
  EXPECT_EQ(kernel.ioctl(group.get(), VFIO_GROUP_UNSET_CONTAINER, nullptr), -EINVAL);
  EXPECT_EQ(kernel.ioctl(container.get(), VFIO_IOMMU_GET_INFO, nullptr), -EINVAL) << "the IOMMU went with it";
}

TEST_F(SimulatedGroup, IsAnotherOneWhenTheFunctionIsBoundAgain) {
  const Fd old = open(group_node);
  ASSERT_EQ(kernel.write_file(unbind, disk), 0);
  ASSERT_EQ(kernel.write_file("/sys/bus/pci/devices/0000:00:01.0/driver_override", "vfio-pci"), 0);
  ASSERT_EQ(kernel.write_file(bind, disk), 0);
  EXPECT_EQ(status(old), -ENODEV);
  Fd again = open(group_node);
  ASSERT_TRUE(again) << "though the old one is open";
  EXPECT_EQ(status(again), VFIO_GROUP_FLAGS_VIABLE);
}

TEST(SimulatedFds, AreListedWithTheNodesThatTheyAreOf) {
  sim::Kernel kernel;
  const Fd container(kernel, kernel.open("/dev/vfio/vfio", O_RDWR));
  const Fd real(kernel, kernel.eventfd());
  std::vector<std::string> names;
  ASSERT_EQ(kernel.list_directory("/proc/self/fd", names), 0);
  const auto target_of = [&](const Fd& fd) {
    std::string target;
    EXPECT_THAT(names, testing::Contains(std::to_string(fd.get())));
    EXPECT_GE(kernel.read_link("/proc/self/fd/" + std::to_string(fd.get()), target), 0);
    return target;
  };
  EXPECT_EQ(target_of(container), "/dev/vfio/vfio");
  EXPECT_EQ(target_of(real), "anon_inode:[eventfd]");
}

}  // namespace group_test
}  // namespace postern
