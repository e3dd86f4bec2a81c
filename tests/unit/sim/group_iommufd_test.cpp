// SPDX-License-Identifier: Apache-2.0
// An iommufd as the container of a group, on the simulated kernel: what Linux 7.3 makes of it, and what it refuses.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <cerrno>
#include <postern/sim.hpp>
#include <string>

#include "kernel/tailed.hpp"

namespace postern {
namespace {

constexpr const char* disk = "0000:00:01.0";
constexpr const char* disk_group = "/dev/vfio/1";
constexpr const char* twin = "0000:01:00.0";
constexpr const char* other_twin = "0000:01:00.1";
constexpr const char* twin_group = "/dev/vfio/4";
constexpr std::uint32_t viable = VFIO_GROUP_FLAGS_VIABLE;
constexpr std::uint32_t in_container = VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET;

// simulated_pc(), and behind it a disk without an IOMMU.
SimulatedHost host() {
  SimulatedHost host = simulated_pc();
  host.functions.push_back({.address = {.device = 9}, .iommu_group = -1, .driver = "vfio-pci"});
  host.enable_unsafe_noiommu_mode = true;
  return host;
}

class GroupInIommufd : public ::testing::Test {
 protected:
  GroupInIommufd() {
    for (const std::string function : {twin, other_twin}) give_to("vfio-pci", function);
  }
  int open(const char* path) { return kernel.open(path, O_RDWR); }
  int call(int fd, unsigned long request, std::uintptr_t argument = 0) {
    return kernel.ioctl(fd, request, reinterpret_cast<void*>(argument));
  }
  int set_container(int group, int container) { return kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER, &container); }
  int unset_container(int group) { return call(group, VFIO_GROUP_UNSET_CONTAINER); }
  int open_device(int group, std::string name) { return kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name.data()); }
  std::uint32_t flags(int group) {
    vfio_group_status status{.argsz = sizeof status, .flags = 0};
    EXPECT_EQ(kernel.ioctl(group, VFIO_GROUP_GET_STATUS, &status), 0);
    return status.flags;
  }
  // The id that it gave, or the negated errno.
  int vfio_ioas(int iommufd, std::uint16_t op = IOMMU_VFIO_IOAS_GET, std::uint32_t id = 0) {
    iommu_vfio_ioas request{.size = sizeof request, .ioas_id = id, .op = op, .__reserved = 0};
    const int result = kernel.ioctl(iommufd, IOMMU_VFIO_IOAS, &request);
    return result < 0 ? result : static_cast<int>(request.ioas_id);
  }
  int bind(int device, int iommufd) {
    vfio_device_bind_iommufd request{};
    request.argsz = sizeof request;
    request.iommufd = iommufd;
    return kernel.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &request);
  }
  int destroy(int iommufd, std::uint32_t id) {
    iommu_destroy request{.size = sizeof request, .id = id};
    return kernel.ioctl(iommufd, IOMMU_DESTROY, &request);
  }
  int allocate_ioas(int iommufd) {
    iommu_ioas_alloc request{.size = sizeof request, .flags = 0, .out_ioas_id = 0};
    EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_ALLOC, &request), 0);
    return static_cast<int>(request.out_ioas_id);
  }
  void unbind(const std::string& function) {
    ASSERT_EQ(kernel.write_file("/sys/bus/pci/devices/" + function + "/driver/unbind", function), 0);
  }
  void give_to(const std::string& driver, const std::string& function) {
    if (std::string bound; kernel.read_link("/sys/bus/pci/devices/" + function + "/driver", bound) == 0)
      unbind(function);
    ASSERT_EQ(kernel.write_file("/sys/bus/pci/devices/" + function + "/driver_override", driver), 0);
    ASSERT_EQ(kernel.write_file("/sys/bus/pci/drivers/" + driver + "/bind", function), 0);
  }

  SimulatedKernel kernel{host()};
};

TEST_F(GroupInIommufd, GivesVfiosIoctlsAnIoasOnce) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -ENODEV);
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), 1);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), 0);
  EXPECT_EQ(flags(group), in_container);
  EXPECT_EQ(set_container(group, iommufd), -EINVAL);
  EXPECT_EQ(set_container(group, open("/dev/vfio/vfio")), -EINVAL);
  ASSERT_EQ(set_container(open(twin_group), iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), 1) << "as before";
  EXPECT_EQ(allocate_ioas(iommufd), 2);
  ASSERT_EQ(unset_container(group), 0);
  EXPECT_EQ(unset_container(group), -EINVAL);
  EXPECT_EQ(flags(group), viable);
  EXPECT_EQ(vfio_ioas(iommufd), 1) << "it stays";
}

TEST_F(GroupInIommufd, TakesTheIoasThatIsThere) {
  const int iommufd = open("/dev/iommu");
  const int mine = allocate_ioas(iommufd);
  ASSERT_GE(vfio_ioas(iommufd, IOMMU_VFIO_IOAS_SET, static_cast<std::uint32_t>(mine)), 0);
  ASSERT_EQ(set_container(open(disk_group), iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), mine);
  EXPECT_EQ(destroy(iommufd, 2), -ENOENT) << "no other was left";
}

TEST_F(GroupInIommufd, OpensADeviceThatIsBoundAndAttached) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  EXPECT_EQ(open_device(group, disk), -EINVAL);
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(open_device(group, twin), -ENODEV);
  const int device = open_device(group, disk);
  ASSERT_GE(device, 0);
  constexpr std::uint32_t ioas = 1, object = 2, hwpt = 3;
  for (const std::uint32_t id : {ioas, object, hwpt}) EXPECT_EQ(destroy(iommufd, id), -EBUSY) << id;
  const int again = open_device(group, disk);
  ASSERT_GE(again, 0);
  EXPECT_EQ(destroy(iommufd, 4), -ENOENT) << "it is bound once";
  vfio_device_attach_iommufd_pt attach{.argsz = sizeof attach, .flags = 0, .pt_id = ioas};
  EXPECT_EQ(kernel.ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), -ENOTTY) << "that is the cdevs'";
  kernel.close(device);
  EXPECT_EQ(destroy(iommufd, object), -EBUSY);
  kernel.close(again);
  EXPECT_EQ(destroy(iommufd, object), -ENOENT);
  EXPECT_EQ(destroy(iommufd, hwpt), -ENOENT);
  EXPECT_EQ(destroy(iommufd, ioas), 0);
}

TEST_F(GroupInIommufd, OpensNoDeviceWithoutTheIoas) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  ASSERT_EQ(vfio_ioas(iommufd, IOMMU_VFIO_IOAS_CLEAR), 0);
  EXPECT_EQ(open_device(group, disk), -ENODEV);
  EXPECT_EQ(destroy(iommufd, 2), -ENOENT) << "it was unbound again";
  EXPECT_EQ(set_container(open(twin_group), iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), 2) << "another one";
  EXPECT_GE(open_device(group, disk), 0);
}

TEST_F(GroupInIommufd, WhatIsReservedIsInTheWayOfMappings) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  alignas(4096) static std::byte memory[4096];
  vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                               .flags = VFIO_DMA_MAP_FLAG_READ,
                               .vaddr = reinterpret_cast<std::uintptr_t>(memory),
                               .iova = 0xfee00000,
                               .size = sizeof memory};
  ASSERT_EQ(kernel.ioctl(iommufd, VFIO_IOMMU_MAP_DMA, &map), 0);
  EXPECT_EQ(open_device(group, disk), -EADDRINUSE);
  EXPECT_EQ(flags(group), in_container);
  vfio_iommu_type1_dma_unmap unmap{.argsz = sizeof unmap, .flags = 0, .iova = map.iova, .size = map.size};
  ASSERT_EQ(kernel.ioctl(iommufd, VFIO_IOMMU_UNMAP_DMA, &unmap), 0);
  EXPECT_GE(open_device(group, disk), 0);
}

// With a container it is SET_CONTAINER that claims the group, and here it is the first device.
TEST_F(GroupInIommufd, IsNotViableWhenADeviceIsOpenedAndNotBefore) {
  give_to("nvme", other_twin);
  const int iommufd = open("/dev/iommu");
  const int group = open(twin_group);
  EXPECT_EQ(flags(group), 0U);
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(flags(group), in_container);
  EXPECT_EQ(open_device(group, twin), -EPERM);
  unbind(other_twin);
  const int device = open_device(group, twin);
  ASSERT_GE(device, 0);
  EXPECT_EQ(kernel.write_file("/sys/bus/pci/drivers/nvme/bind", other_twin), -EBUSY);
  kernel.close(device);
  EXPECT_EQ(kernel.write_file("/sys/bus/pci/drivers/nvme/bind", other_twin), 0);
}

TEST_F(GroupInIommufd, MayLeaveItsDevicesBound) {
  const int iommufd = open("/dev/iommu");
  const int group = open(twin_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  const int device = open_device(group, twin);
  ASSERT_GE(device, 0);
  ASSERT_EQ(unset_container(group), 0);
  EXPECT_EQ(flags(group), 0U) << "the iommufd has its DMA";
  EXPECT_EQ(open_device(group, twin), -EINVAL);
  EXPECT_EQ(set_container(group, open("/dev/vfio/vfio")), -EPERM);
  const int other = open("/dev/iommu");
  ASSERT_EQ(set_container(group, other), 0);
  EXPECT_EQ(open_device(group, other_twin), -EPERM);
  const int again = open_device(group, twin);
  ASSERT_GE(again, 0) << "it was not bound another time";
  kernel.close(device);
  kernel.close(iommufd);
  EXPECT_EQ(call(again, VFIO_DEVICE_RESET), 0);
  EXPECT_EQ(open_device(group, other_twin), -EPERM) << "the first iommufd has it still";
  kernel.close(again);
  EXPECT_GE(open_device(group, other_twin), 0);
}

TEST_F(GroupInIommufd, KeepsTheIommufdThatIsClosed) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  kernel.close(iommufd);
  EXPECT_EQ(flags(group), in_container);
  EXPECT_GE(open_device(group, disk), 0);
}

TEST_F(GroupInIommufd, KeepsCdevsAway) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  const int cdev = open("/dev/vfio/devices/vfio0");
  EXPECT_EQ(bind(cdev, iommufd), -EBUSY);
  const int device = open_device(group, disk);
  EXPECT_EQ(bind(device, iommufd), -EINVAL);
}

// With a container they would hold it.
TEST_F(GroupInIommufd, IsNotHeldOpenByItsDevices) {
  const int iommufd = open("/dev/iommu");
  const int group = open(twin_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  const int device = open_device(group, twin);
  ASSERT_GE(device, 0);
  kernel.close(group);
  EXPECT_EQ(call(device, VFIO_DEVICE_RESET), 0);
  const int again = open(twin_group);
  ASSERT_GE(again, 0);
  EXPECT_EQ(flags(again), 0U) << "the iommufd has its DMA";
  EXPECT_EQ(open_device(again, twin), -EINVAL);
  kernel.close(again);
  const int cdev = open("/dev/vfio/devices/vfio5");
  EXPECT_EQ(bind(cdev, iommufd), -EINVAL) << "it is open";
  const int other = open("/dev/vfio/devices/vfio6");
  EXPECT_EQ(bind(other, open("/dev/iommu")), -EPERM);
  ASSERT_EQ(bind(other, iommufd), 0);
  EXPECT_EQ(open(twin_group), -EBUSY);
  vfio_pci_hot_reset reset{};
  reset.argsz = sizeof reset;
  EXPECT_EQ(kernel.ioctl(other, VFIO_DEVICE_PCI_HOT_RESET, &reset), 0) << "both are this iommufd's";
  kernel.close(other);
  EXPECT_EQ(kernel.ioctl(device, VFIO_DEVICE_PCI_HOT_RESET, &reset), -EINVAL);
}

TEST_F(GroupInIommufd, ProvesAHotResetByGroups) {
  const int iommufd = open("/dev/iommu");
  const int group = open(twin_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  const int device = open_device(group, twin);
  ASSERT_GE(device, 0);
  Tailed<vfio_pci_hot_reset_info, vfio_pci_dependent_device> info(2);
  ASSERT_EQ(kernel.ioctl(device, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info.head()), 0);
  EXPECT_EQ(info.head().flags, 0U);
  ASSERT_EQ(info.head().count, 2U);
  EXPECT_EQ(info.tail()[1].group_id, 4U);
  Tailed<vfio_pci_hot_reset, int> proof(1);
  const auto reset = [&](std::uint32_t count, int fd) {
    proof.head().count = count;
    proof.tail()[0] = fd;
    return kernel.ioctl(device, VFIO_DEVICE_PCI_HOT_RESET, &proof.head());
  };
  EXPECT_EQ(reset(0, -1), -EINVAL) << "that is the cdevs'";
  EXPECT_EQ(reset(1, open(disk_group)), -EINVAL);
  EXPECT_EQ(reset(1, iommufd), -EINVAL);
  EXPECT_EQ(reset(1, group), 0);
}

TEST_F(GroupInIommufd, ThatLostItsNodeStaysInIt) {
  const int iommufd = open("/dev/iommu");
  const int group = open(disk_group);
  ASSERT_EQ(set_container(group, iommufd), 0);
  unbind(disk);
  EXPECT_EQ(set_container(group, iommufd), -EINVAL);
  EXPECT_EQ(open_device(group, disk), -ENODEV);
  give_to("vfio-pci", disk);
  EXPECT_EQ(open_device(group, disk), -ENODEV) << "that is another group's";
  const int anew = open(disk_group);
  EXPECT_EQ(flags(anew), viable);
  ASSERT_EQ(set_container(anew, iommufd), 0);
  EXPECT_EQ(unset_container(group), 0);
  EXPECT_EQ(unset_container(group), -EINVAL);
  EXPECT_EQ(set_container(group, iommufd), -ENODEV);
  EXPECT_EQ(flags(anew), in_container);
  EXPECT_GE(open_device(anew, disk), 0);
}

TEST_F(GroupInIommufd, WithoutAnIommuWantsNoIoas) {
  const int iommufd = open("/dev/iommu");
  const int group = open("/dev/vfio/noiommu-0");
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(flags(group), in_container);
  EXPECT_EQ(vfio_ioas(iommufd), -ENODEV);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU), 0);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL), 0);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), 1);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -EINVAL);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), 0);
  EXPECT_EQ(set_container(open(disk_group), iommufd), -EINVAL);
  const int device = open_device(group, "0000:00:09.0");
  ASSERT_GE(device, 0);
  EXPECT_EQ(destroy(iommufd, 1), -ENOENT) << "it is bound to nothing";
  const int ioas = allocate_ioas(iommufd);
  ASSERT_GE(vfio_ioas(iommufd, IOMMU_VFIO_IOAS_SET, static_cast<std::uint32_t>(ioas)), 0);
  const int again = open_device(group, "0000:00:09.0");
  EXPECT_GE(again, 0) << "it is open already";
  kernel.close(device);
  kernel.close(again);
  EXPECT_EQ(open_device(group, "0000:00:09.0"), -EPERM);
  ASSERT_EQ(unset_container(group), 0);
  EXPECT_EQ(set_container(group, iommufd), -EINVAL);
}

}  // namespace
}  // namespace postern
