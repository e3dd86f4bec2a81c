// SPDX-License-Identifier: Apache-2.0
// An iommufd as the container of a group, with plain system calls: the library never uses this, but other programs that
// run on the simulated kernel may.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <postern/deadline.hpp>
#include <postern/fd.hpp>
#include <tuple>

#include "kernel/flex_array.hpp"
#include "support/edu.hpp"
#include "support/host_devices.hpp"

namespace postern {
namespace group_iommufd_test {

using test::Bound;

constexpr const char* bind_path = "/sys/bus/pci/drivers/vfio-pci/bind";
constexpr const char* unbind_path = "/sys/bus/pci/drivers/vfio-pci/unbind";
constexpr std::uint32_t viable = VFIO_GROUP_FLAGS_VIABLE;
constexpr std::uint32_t in_container = VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET;

Kernel& kernel() { return test::kernel(); }

// A negative fd is the negated errno.
Fd open(const std::string& path) { return {kernel(), kernel().open(path.c_str(), O_RDWR)}; }
Fd open_iommufd() { return open("/dev/iommu"); }
Fd open_container() { return open("/dev/vfio/vfio"); }
Fd open_group(const Bound& bound) { return open("/dev/vfio/" + to_string(bound.host().iommu_group.value())); }
Fd open_cdev(const Bound& bound) { return open(bound.host().cdev.value().path); }

int call(const Fd& fd, unsigned long request, std::uintptr_t argument = 0) {
  return kernel().ioctl(fd.get(), request, reinterpret_cast<void*>(argument));  // NOLINT(performance-no-int-to-ptr)
}
int set_container(const Fd& group, const Fd& container) {
  int fd = container.get();
  return kernel().ioctl(group.get(), VFIO_GROUP_SET_CONTAINER, &fd);
}
int unset_container(const Fd& group) { return call(group, VFIO_GROUP_UNSET_CONTAINER); }
Fd open_device(const Fd& group, PciAddress address) {
  std::string name = to_string(address);
  return {kernel(), kernel().ioctl(group.get(), VFIO_GROUP_GET_DEVICE_FD, name.data())};
}
std::uint32_t flags(const Fd& group) {
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  EXPECT_EQ(kernel().ioctl(group.get(), VFIO_GROUP_GET_STATUS, &status), 0);
  return status.flags;
}
int bind(const Fd& cdev, const Fd& iommufd) {
  vfio_device_bind_iommufd request{};
  request.argsz = sizeof request;
  request.iommufd = iommufd.get();
  return kernel().ioctl(cdev.get(), VFIO_DEVICE_BIND_IOMMUFD, &request);
}
// The IOAS that VFIO's container ioctls use, or a negated errno.
int vfio_ioas(const Fd& iommufd, std::uint16_t op = IOMMU_VFIO_IOAS_GET, std::uint32_t id = 0) {
  iommu_vfio_ioas request{.size = sizeof request, .ioas_id = id, .op = op, .__reserved = 0};
  const int result = kernel().ioctl(iommufd.get(), IOMMU_VFIO_IOAS, &request);
  return result < 0 ? result : static_cast<int>(request.ioas_id);
}
std::uint32_t allocate_ioas(const Fd& iommufd) {
  iommu_ioas_alloc request{.size = sizeof request, .flags = 0, .out_ioas_id = 0};
  EXPECT_EQ(kernel().ioctl(iommufd.get(), IOMMU_IOAS_ALLOC, &request), 0);
  return request.out_ioas_id;
}
// -ENOENT if the id does not exist, -EBUSY if its object is in use, 0 if it was not and is destroyed now.
int destroy(const Fd& iommufd, std::uint32_t id) {
  iommu_destroy request{.size = sizeof request, .id = id};
  return kernel().ioctl(iommufd.get(), IOMMU_DESTROY, &request);
}
int hot_reset(const Fd& device, std::uint32_t count, const Fd& group = {}) {
  FlexArray<vfio_pci_hot_reset, int> request(1);
  request.head().count = count;
  request.tail()[0] = group.get();
  return kernel().ioctl(device.get(), VFIO_DEVICE_PCI_HOT_RESET, &request.head());
}

class GroupInIommufd : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!iommufd) GTEST_SKIP() << "this host has no /dev/iommu";
  }

  const Bound disk{test::first_nvme()};
  Fd iommufd = open_iommufd();
};

TEST_F(GroupInIommufd, GivesVfiosIoctlsAnIoasOnce) {
  const Bound other(test::last_nvme());
  const Fd group = open_group(disk);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -ENODEV);
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), 1);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), 0);
  EXPECT_EQ(flags(group), in_container);
  EXPECT_EQ(set_container(group, iommufd), -EINVAL);
  EXPECT_EQ(set_container(group, open_container()), -EINVAL);
  ASSERT_EQ(set_container(open_group(other), iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), 1) << "as before";
  EXPECT_EQ(allocate_ioas(iommufd), 2U);
  ASSERT_EQ(unset_container(group), 0);
  EXPECT_EQ(unset_container(group), -EINVAL);
  EXPECT_EQ(flags(group), viable);
  EXPECT_EQ(vfio_ioas(iommufd), 1) << "it stays";
}

TEST_F(GroupInIommufd, TakesTheIoasThatIsThere) {
  const std::uint32_t mine = allocate_ioas(iommufd);
  ASSERT_GE(vfio_ioas(iommufd, IOMMU_VFIO_IOAS_SET, mine), 0);
  ASSERT_EQ(set_container(open_group(disk), iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), static_cast<int>(mine));
  EXPECT_EQ(destroy(iommufd, mine + 1), -ENOENT) << "no other was left";
}

TEST_F(GroupInIommufd, OpensADeviceThatIsBoundAndAttached) {
  const Fd group = open_group(disk);
  EXPECT_EQ(open_device(group, test::first_nvme()).get(), -EINVAL);
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU), 1) << "there is no page table yet";
  EXPECT_EQ(open_device(group, test::last_nvme()).get(), -ENODEV);
  Fd device = open_device(group, test::first_nvme());
  ASSERT_TRUE(device);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_DMA_CC_IOMMU), 0);
  constexpr std::uint32_t ioas = 1;
  constexpr std::uint32_t object = 2;
  constexpr std::uint32_t hwpt = 3;
  for (const std::uint32_t id : {ioas, object, hwpt}) EXPECT_EQ(destroy(iommufd, id), -EBUSY) << id;
  Fd again = open_device(group, test::first_nvme());
  ASSERT_TRUE(again);
  EXPECT_EQ(destroy(iommufd, hwpt + 1), -ENOENT) << "it is bound once";
  vfio_device_attach_iommufd_pt attach{};
  attach.argsz = sizeof attach;
  attach.pt_id = ioas;
  EXPECT_EQ(kernel().ioctl(device.get(), VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), -ENOTTY) << "that is the cdevs'";
  device.reset();
  EXPECT_EQ(destroy(iommufd, object), -EBUSY);
  again.reset();
  for (const std::uint32_t id : {object, hwpt}) EXPECT_EQ(destroy(iommufd, id), -ENOENT) << id;
  EXPECT_EQ(destroy(iommufd, ioas), 0);
}

TEST_F(GroupInIommufd, OpensNoDeviceWithoutTheIoas) {
  const Bound other(test::last_nvme());
  const Fd group = open_group(disk);
  ASSERT_EQ(set_container(group, iommufd), 0);
  ASSERT_EQ(vfio_ioas(iommufd, IOMMU_VFIO_IOAS_CLEAR), 0);
  EXPECT_EQ(open_device(group, test::first_nvme()).get(), -ENODEV);
  EXPECT_EQ(destroy(iommufd, 2), -ENOENT) << "it was unbound again";
  EXPECT_EQ(set_container(open_group(other), iommufd), 0);
  EXPECT_EQ(vfio_ioas(iommufd), 2) << "another one";
  EXPECT_TRUE(open_device(group, test::first_nvme()));
}

TEST_F(GroupInIommufd, AMappingBeyondTheIommuIsInTheWayOfADevice) {
  const Fd group = open_group(disk);
  ASSERT_EQ(set_container(group, iommufd), 0);
  alignas(4096) static std::byte memory[4096];
  vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                               .flags = VFIO_DMA_MAP_FLAG_READ,
                               .vaddr = reinterpret_cast<std::uintptr_t>(memory),
                               .iova = std::uint64_t{1} << 63,
                               .size = sizeof memory};
  ASSERT_EQ(kernel().ioctl(iommufd.get(), VFIO_IOMMU_MAP_DMA, &map), 0);
  EXPECT_EQ(open_device(group, test::first_nvme()).get(), -EADDRINUSE);
  EXPECT_EQ(flags(group), in_container);
  vfio_iommu_type1_dma_unmap unmap{};
  unmap.argsz = sizeof unmap;
  unmap.iova = map.iova;
  unmap.size = map.size;
  ASSERT_EQ(kernel().ioctl(iommufd.get(), VFIO_IOMMU_UNMAP_DMA, &unmap), 0);
  EXPECT_TRUE(open_device(group, test::first_nvme()));
}

TEST_F(GroupInIommufd, KeepsTheIommufdThatIsClosed) {
  const Fd group = open_group(disk);
  ASSERT_EQ(set_container(group, iommufd), 0);
  iommufd.reset();
  EXPECT_EQ(flags(group), in_container);
  EXPECT_TRUE(open_device(group, test::first_nvme()));
}

TEST_F(GroupInIommufd, KeepsCdevsAway) {
  const Fd group = open_group(disk);
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(bind(open_cdev(disk), iommufd), -EBUSY);
  EXPECT_EQ(bind(open_device(group, test::first_nvme()), iommufd), -EINVAL);
}

TEST_F(GroupInIommufd, StaysInItWhenItsLastFunctionIsUnbound) {
  const std::string name = to_string(test::first_nvme());
  const Fd group = open_group(disk);
  ASSERT_EQ(set_container(group, iommufd), 0);
  ASSERT_EQ(kernel().write_file(unbind_path, name), 0);
  EXPECT_EQ(set_container(group, iommufd), -EINVAL);
  EXPECT_EQ(open_device(group, test::first_nvme()).get(), -ENODEV);
  ASSERT_EQ(kernel().write_file(bind_path, name), 0);
  EXPECT_EQ(open_device(group, test::first_nvme()).get(), -ENODEV) << "that is another group's";
  const Fd anew = open_group(disk);
  EXPECT_EQ(flags(anew), viable);
  ASSERT_EQ(set_container(anew, iommufd), 0);
  EXPECT_EQ(unset_container(group), 0);
  EXPECT_EQ(unset_container(group), -EINVAL);
  EXPECT_EQ(set_container(group, iommufd), -ENODEV);
  EXPECT_EQ(flags(anew), in_container);
  EXPECT_TRUE(open_device(anew, test::first_nvme()));
}

// Makes edu write the first 8 bytes of its own memory, which are zero, to this address.
void copy_from_edu(const Fd& device, std::uint64_t to) {
  const auto write = [&](std::uint64_t at, auto value) {
    ASSERT_EQ(kernel().pwrite(device.get(), &value, sizeof value, at), static_cast<ssize_t>(sizeof value));
  };
  constexpr std::uint64_t config = std::uint64_t{VFIO_PCI_CONFIG_REGION_INDEX} << 40;
  constexpr std::uint32_t start = 1;
  write(config + 4, std::uint16_t{6});  // enables memory and bus mastering
  write(0x80, static_cast<std::uint32_t>(test::EduRegisters::buffer));
  write(0x88, static_cast<std::uint32_t>(to));
  write(0x90, std::uint32_t{8});
  write(0x98, start | test::EduRegisters::to_memory);
  std::uint32_t command = start;
  EXPECT_TRUE(poll_until(Deadline(std::chrono::seconds(10)), std::chrono::milliseconds(1), [&] {
    EXPECT_EQ(kernel().pread(device.get(), &command, sizeof command, 0x98), static_cast<ssize_t>(sizeof command));
    return (command & start) == 0;
  }));
}

TEST_F(GroupInIommufd, ItsDeviceReachesWhatIsMappedEvenWhenItLeft) {
  const auto address = test::find_edu();
  if (!address) GTEST_SKIP() << "this host has no edu device";
  const Bound edu(*address);
  const Fd group = open_group(edu);
  ASSERT_EQ(set_container(group, iommufd), 0);
  const Fd device = open_device(group, *address);
  ASSERT_TRUE(device);
  alignas(4096) static std::array<std::byte, 4096> memory{};
  vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                               .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                               .vaddr = reinterpret_cast<std::uintptr_t>(memory.data()),
                               .iova = 0x10000,
                               .size = memory.size()};
  ASSERT_EQ(kernel().ioctl(iommufd.get(), VFIO_IOMMU_MAP_DMA, &map), 0);
  const auto written = [&] {
    memory.fill(std::byte{0xa5});
    copy_from_edu(device, map.iova);
    return std::count(memory.begin(), memory.end(), std::byte{0});
  };
  EXPECT_EQ(written(), 8);
  ASSERT_EQ(unset_container(group), 0);
  EXPECT_EQ(written(), 8);
}

// Two functions of one slot.
class TwinsInIommufd : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto twins = test::twins();
    if (!twins) GTEST_SKIP() << "this host has no two NVMe functions in one slot";
    std::tie(first, second) = *twins;
    first_bound.emplace(first);
    group = open_group(*first_bound);
    ASSERT_TRUE(group);
  }
  // Makes the group viable.
  void bind_second() { second_bound.emplace(second); }

  PciAddress first;
  PciAddress second;
  std::optional<Bound> first_bound;
  std::optional<Bound> second_bound;
  Fd iommufd = open_iommufd();
  Fd group;
};

// With a container, SET_CONTAINER claims the group; with an iommufd, opening the first device does.
TEST_F(TwinsInIommufd, AGroupIsViableWhenADeviceIsOpenedAndNotBefore) {
  const std::string name = to_string(second);
  const std::string driver = find_host_device(kernel(), "pci", name).value().sysfs_path + "/driver/unbind";
  EXPECT_EQ(flags(group), 0U) << "the other one is the kernel's";
  ASSERT_EQ(set_container(group, iommufd), 0);
  EXPECT_EQ(flags(group), in_container);
  EXPECT_EQ(open_device(group, first).get(), -EPERM);
  ASSERT_EQ(kernel().write_file(driver, name), 0);
  Fd device = open_device(group, first);
  ASSERT_TRUE(device);
  EXPECT_EQ(kernel().write_file("/sys/bus/pci/drivers/nvme/bind", name), -EBUSY);
  device.reset();
  EXPECT_EQ(kernel().write_file("/sys/bus/pci/drivers/nvme/bind", name), 0);
}

TEST_F(TwinsInIommufd, AGroupMayLeaveItsDevicesBound) {
  bind_second();
  ASSERT_EQ(set_container(group, iommufd), 0);
  Fd device = open_device(group, first);
  ASSERT_TRUE(device);
  ASSERT_EQ(unset_container(group), 0);
  EXPECT_EQ(flags(group), 0U) << "the iommufd has its DMA";
  EXPECT_EQ(open_device(group, first).get(), -EINVAL);
  EXPECT_EQ(set_container(group, open_container()), -EPERM);
  ASSERT_EQ(set_container(group, open_iommufd()), 0);
  EXPECT_EQ(open_device(group, second).get(), -EPERM);
  Fd again = open_device(group, first);
  ASSERT_TRUE(again) << "it was not bound another time";
  device.reset();
  iommufd.reset();
  EXPECT_EQ(call(again, VFIO_DEVICE_RESET), 0);
  EXPECT_EQ(open_device(group, second).get(), -EPERM) << "the first iommufd has it still";
  again.reset();
  EXPECT_TRUE(open_device(group, second));
}

// With a container they would keep it open.
TEST_F(TwinsInIommufd, AGroupIsNotHeldOpenByItsDevices) {
  bind_second();
  ASSERT_EQ(set_container(group, iommufd), 0);
  const Fd device = open_device(group, first);
  ASSERT_TRUE(device);
  group.reset();
  EXPECT_EQ(call(device, VFIO_DEVICE_RESET), 0);
  group = open_group(*first_bound);
  ASSERT_TRUE(group);
  EXPECT_EQ(flags(group), 0U) << "the iommufd has its DMA";
  EXPECT_EQ(open_device(group, first).get(), -EINVAL);
  group.reset();
  EXPECT_EQ(bind(open_cdev(*first_bound), iommufd), -EINVAL) << "it is open";
  Fd cdev = open_cdev(*second_bound);
  EXPECT_EQ(bind(cdev, open_iommufd()), -EPERM);
  ASSERT_EQ(bind(cdev, iommufd), 0);
  EXPECT_EQ(open_group(*first_bound).get(), -EBUSY);
  EXPECT_EQ(hot_reset(cdev, 0), 0) << "both are this iommufd's";
  cdev.reset();
  EXPECT_EQ(hot_reset(device, 0), -EINVAL);
}

TEST_F(TwinsInIommufd, AGroupProvesAHotReset) {
  const Bound disk(test::first_nvme());
  bind_second();
  ASSERT_EQ(set_container(group, iommufd), 0);
  const Fd device = open_device(group, first);
  ASSERT_TRUE(device);
  FlexArray<vfio_pci_hot_reset_info, vfio_pci_dependent_device> info(2);
  ASSERT_EQ(kernel().ioctl(device.get(), VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, &info.head()), 0);
  EXPECT_EQ(info.head().flags, 0U);
  ASSERT_EQ(info.head().count, 2U);
  for (const int i : {0, 1}) {
    EXPECT_EQ(info.tail()[i].group_id, static_cast<std::uint32_t>(first_bound->host().iommu_group.value()));
  }
  EXPECT_EQ(hot_reset(device, 0), -EINVAL) << "that is the cdevs'";
  EXPECT_EQ(hot_reset(device, 1, open_group(disk)), -EINVAL);
  EXPECT_EQ(hot_reset(device, 1, iommufd), -EINVAL);
  EXPECT_EQ(hot_reset(device, 1, group), 0);
}

TEST_F(TwinsInIommufd, AGroupThatLostItsNodeProvesNothing) {
  bind_second();
  for (const PciAddress each : {first, second}) ASSERT_EQ(kernel().write_file(unbind_path, to_string(each)), 0);
  for (const PciAddress each : {first, second}) ASSERT_EQ(kernel().write_file(bind_path, to_string(each)), 0);
  const Fd anew = open_group(*first_bound);
  ASSERT_EQ(set_container(anew, iommufd), 0);
  const Fd device = open_device(anew, first);
  EXPECT_EQ(hot_reset(device, 1, group), -EINVAL);
  EXPECT_EQ(hot_reset(device, 1, anew), 0);
}

}  // namespace group_iommufd_test
}  // namespace postern
