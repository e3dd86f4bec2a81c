// SPDX-License-Identifier: Apache-2.0
// No-IOMMU mode of the simulated kernel: the group that VFIO creates, its container, and the cdev (Linux 7.3).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <postern-sim/kernel.hpp>
#include <postern/barriers.hpp>
#include <postern/deadline.hpp>
#include <postern/little_endian.hpp>

namespace postern {
namespace noiommu_test {

constexpr const char* mode = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
constexpr const char* disk_path = "/sys/bus/pci/devices/0000:00:01.0";

// A host with a disk behind no IOMMU, and one in group 0 of an IOMMU.
sim::Host half_a_host(bool enabled, std::optional<std::uint64_t> limit = {}) {
  return {.functions = {{.address = {.device = 1}, .iommu_group = -1, .driver = "vfio-pci"},
                        {.address = {.device = 2}, .iommu_group = 0, .driver = "vfio-pci"}},
          .locked_memory = limit,
          .enable_unsafe_noiommu_mode = enabled};
}

class NoIommuMode : public ::testing::Test {
 protected:
  int open(const char* path) { return kernel.open(path, O_RDWR); }
  int call(int fd, unsigned long request, std::uintptr_t argument) {
    return kernel.ioctl(fd, request, reinterpret_cast<void*>(argument));
  }
  int set_container(int group, int container) { return kernel.ioctl(group, VFIO_GROUP_SET_CONTAINER, &container); }
  bool has(const std::string& path) {
    FileStatus status;
    return kernel.status(path, status) == 0;
  }

  sim::Kernel kernel{half_a_host(true)};
};

TEST(WithoutNoIommuMode, VfioTakesNoFunctionWithoutAGroup) {
  sim::Host host = half_a_host(false);
  host.functions[0].driver.clear();  // the native driver, nvme
  sim::Kernel kernel(host);
  std::string text;
  ASSERT_EQ(kernel.write_file(std::string(disk_path) + "/driver_override", "vfio-pci"), 0);
  ASSERT_EQ(kernel.write_file(std::string(disk_path) + "/driver/unbind", "0000:00:01.0"), 0);
  EXPECT_EQ(kernel.write_file("/sys/bus/pci/drivers/vfio-pci/bind", "0000:00:01.0"), -EINVAL);
  ASSERT_EQ(kernel.read_file(mode, text), 0);
  EXPECT_EQ(text, "N\n");
  EXPECT_EQ(kernel.write_file(mode, "maybe"), -EINVAL);
  ASSERT_EQ(kernel.write_file(mode, "Y\n"), 0);
  EXPECT_EQ(kernel.write_file("/sys/bus/pci/drivers/vfio-pci/bind", "0000:00:01.0"), 0);
}

TEST_F(NoIommuMode, MakesAGroupForAsLongAsTheFunctionIsBound) {
  std::string text;
  ASSERT_EQ(kernel.read_link(std::string(disk_path) + "/iommu_group", text), 0);
  EXPECT_EQ(text, "/sys/kernel/iommu_groups/1") << "the lowest number that is free";
  ASSERT_EQ(kernel.read_file("/sys/kernel/iommu_groups/1/name", text), 0);
  EXPECT_EQ(text, "vfio-noiommu\n");
  EXPECT_TRUE(has("/dev/vfio/noiommu-1"));
  EXPECT_FALSE(has("/dev/vfio/1"));
  EXPECT_TRUE(has("/dev/vfio/devices/noiommu-vfio0"));
  EXPECT_TRUE(has("/dev/vfio/devices/vfio1"));
  EXPECT_FALSE(has(std::string(disk_path) + "/iommu"));
  ASSERT_EQ(kernel.write_file("/sys/bus/pci/drivers/vfio-pci/unbind", "0000:00:01.0"), 0);
  EXPECT_FALSE(has("/sys/kernel/iommu_groups/1"));
  EXPECT_FALSE(has("/dev/vfio/noiommu-1"));
  EXPECT_TRUE(has("/dev/vfio/0"));
}

TEST_F(NoIommuMode, AContainerHasOnlyOneKindOfGroups) {
  const int container = open("/dev/vfio/vfio");
  EXPECT_EQ(call(container, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), 1);
  EXPECT_EQ(call(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU), 1) << "no group yet";
  const int group = open("/dev/vfio/noiommu-1");
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  ASSERT_EQ(kernel.ioctl(group, VFIO_GROUP_GET_STATUS, &status), 0);
  EXPECT_EQ(status.flags, std::uint32_t{VFIO_GROUP_FLAGS_VIABLE});
  ASSERT_EQ(set_container(group, container), 0);
  EXPECT_EQ(call(container, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), 1);
  EXPECT_EQ(call(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU), 0);
  const int real = open("/dev/vfio/0");
  EXPECT_EQ(set_container(real, container), -EPERM);
  EXPECT_EQ(call(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -ENODEV);
  ASSERT_EQ(call(container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), 0);
  vfio_iommu_type1_info info{};
  info.argsz = sizeof info;
  EXPECT_EQ(kernel.ioctl(container, VFIO_IOMMU_GET_INFO, &info), -ENOTTY);
  char name[] = "0000:00:01.0";
  EXPECT_GE(kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name), 0);
  const int other = open("/dev/vfio/vfio");
  ASSERT_EQ(set_container(real, other), 0);
  EXPECT_EQ(call(other, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), 0);
  EXPECT_EQ(call(other, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), -ENODEV);
}

TEST_F(NoIommuMode, ACdevsIoasTellsPhysicalAddresses) {
  const int iommufd = open("/dev/iommu");
  const int device = open("/dev/vfio/devices/noiommu-vfio0");
  vfio_device_bind_iommufd bind{};
  bind.argsz = sizeof bind;
  bind.iommufd = iommufd;
  ASSERT_EQ(kernel.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, &bind), 0);
  iommu_ioas_alloc ioas{.size = sizeof ioas, .flags = 0, .out_ioas_id = 0};
  ASSERT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas), 0);
  alignas(4096) static std::array<std::byte, 8192> memory{};
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  iommu_ioas_map map{.size = sizeof map,
                     .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                     .ioas_id = ioas.out_ioas_id,
                     .__reserved = 0,
                     .user_va = address,
                     .length = memory.size(),
                     .iova = 0xfee00000};
  ASSERT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_MAP, &map), 0);
  iommu_ioas_noiommu_get_pa get{};
  get.size = sizeof get;
  get.ioas_id = ioas.out_ioas_id;
  get.iova = 0xfee01004;
  get.length = 1 << 20;
  EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_NOIOMMU_GET_PA, &get), -EOPNOTSUPP) << "there is no page table yet";
  vfio_device_attach_iommufd_pt attach{};
  attach.argsz = sizeof attach;
  attach.pt_id = ioas.out_ioas_id;
  ASSERT_EQ(kernel.ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), 0) << "the window of VT-d is none here";
  ASSERT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_NOIOMMU_GET_PA, &get), 0);
  EXPECT_EQ(get.out_phys, address + 0x1004);
  EXPECT_EQ(get.length, 0x1000U - 4);
  get.iova = 0x1000;
  EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_NOIOMMU_GET_PA, &get), -ENOENT);
  get.length = 0;
  EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_NOIOMMU_GET_PA, &get), -EINVAL);
  iommu_hw_info info{};
  info.size = sizeof info;
  info.dev_id = bind.out_devid;
  EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_GET_HW_INFO, &info), -EOPNOTSUPP);
  iommu_hwpt_alloc hwpt{};
  hwpt.size = sizeof hwpt;
  hwpt.flags = IOMMU_HWPT_ALLOC_PASID;
  hwpt.dev_id = bind.out_devid;
  hwpt.pt_id = ioas.out_ioas_id;
  EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_HWPT_ALLOC, &hwpt), -EOPNOTSUPP);
  // A device with an IOMMU gets its own page table.
  const int other = open("/dev/vfio/devices/vfio1");
  ASSERT_EQ(kernel.ioctl(other, VFIO_DEVICE_BIND_IOMMUFD, &bind), 0);
  const std::uint32_t taken = attach.pt_id;
  EXPECT_EQ(kernel.ioctl(other, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), -EINVAL);
  EXPECT_EQ(attach.pt_id, taken);
}

TEST_F(NoIommuMode, AnIommufdForAContainerHasNoIoas) {
  const int iommufd = open("/dev/iommu");
  const int group = open("/dev/vfio/noiommu-1");
  ASSERT_EQ(set_container(group, iommufd), 0);
  vfio_group_status status{.argsz = sizeof status, .flags = 0};
  ASSERT_EQ(kernel.ioctl(group, VFIO_GROUP_GET_STATUS, &status), 0);
  EXPECT_EQ(status.flags, std::uint32_t{VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET});
  const auto vfio_ioas = [&](std::uint16_t op, std::uint32_t id) {
    iommu_vfio_ioas request{.size = sizeof request, .ioas_id = id, .op = op, .__reserved = 0};
    return kernel.ioctl(iommufd, IOMMU_VFIO_IOAS, &request);
  };
  EXPECT_EQ(vfio_ioas(IOMMU_VFIO_IOAS_GET, 0), -ENODEV);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU), 0);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_UNMAP_ALL), 0);
  EXPECT_EQ(call(iommufd, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU), 1);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU), -EINVAL);
  EXPECT_EQ(call(iommufd, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), 0);
  EXPECT_EQ(set_container(open("/dev/vfio/0"), iommufd), -EINVAL);
  char name[] = "0000:00:01.0";
  const int device = kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
  ASSERT_GE(device, 0);
  iommu_destroy destroy{.size = sizeof destroy, .id = 1};
  EXPECT_EQ(kernel.ioctl(iommufd, IOMMU_DESTROY, &destroy), -ENOENT) << "it is bound to nothing";
  iommu_ioas_alloc ioas{.size = sizeof ioas, .flags = 0, .out_ioas_id = 0};
  ASSERT_EQ(kernel.ioctl(iommufd, IOMMU_IOAS_ALLOC, &ioas), 0);
  ASSERT_EQ(vfio_ioas(IOMMU_VFIO_IOAS_SET, ioas.out_ioas_id), 0);
  const int again = kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
  EXPECT_GE(again, 0) << "it is open already";
  kernel.close(device);
  kernel.close(again);
  EXPECT_EQ(kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name), -EPERM);
  ASSERT_EQ(call(group, VFIO_GROUP_UNSET_CONTAINER, 0), 0);
  EXPECT_EQ(set_container(group, iommufd), -EINVAL);
}

// An NVMe Identify command, with addresses of this process as iovas.
TEST_F(NoIommuMode, DmaGoesByPhysicalAddresses) {
  const int container = open("/dev/vfio/vfio");
  const int group = open("/dev/vfio/noiommu-1");
  ASSERT_EQ(set_container(group, container), 0);
  ASSERT_EQ(call(container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), 0);
  char name[] = "0000:00:01.0";
  const int device = kernel.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, name);
  ASSERT_GE(device, 0);
  vfio_region_info config{};
  config.argsz = sizeof config;
  config.index = VFIO_PCI_CONFIG_REGION_INDEX;
  ASSERT_EQ(kernel.ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config), 0);
  constexpr std::uint16_t memory_and_master = 6;
  ASSERT_EQ(kernel.pwrite(device, &memory_and_master, 2, config.offset + 4), 2);

  struct alignas(4096) Page {
    std::array<Le32, 1024> words{};
  };
  Page submissions;
  Page completions;
  Page identity;
  const auto address = [](const Page& page) { return reinterpret_cast<std::uintptr_t>(&page); };
  submissions.words[0] = 6;   // Identify,
  submissions.words[10] = 1;  // of the controller
  submissions.words[6] = static_cast<std::uint32_t>(address(identity));
  submissions.words[7] = static_cast<std::uint32_t>(address(identity) >> 32);
  const auto write = [&](std::uint64_t at, auto value) {
    EXPECT_EQ(kernel.pwrite(device, &value, sizeof value, at), static_cast<ssize_t>(sizeof value));
  };
  write(0x24, std::uint32_t{0x00030003});  // queues of 4
  write(0x28, static_cast<std::uint64_t>(address(submissions)));
  write(0x30, static_cast<std::uint64_t>(address(completions)));
  write(0x14, std::uint32_t{0x00460001});
  const auto soon = [](auto condition) {
    return poll_until(Deadline(std::chrono::seconds(5)), std::chrono::milliseconds(1), condition);
  };
  ASSERT_TRUE(soon([&] {
    std::uint32_t status = 0;
    return kernel.pread(device, &status, sizeof status, 0x1c) == sizeof status && (status & 1) != 0;
  }));
  write(0x1000, std::uint32_t{1});
  std::uint32_t completed = 0;
  const auto has_completed = [&] {
    completed = completions.words[3].load();
    return (completed >> 16 & 1) != 0;
  };
  ASSERT_TRUE(soon(has_completed));
  dma_rmb();
  EXPECT_EQ(completed >> 17, 0U);
  EXPECT_EQ(identity.words[0] & 0xffff, 0x1b36U);
}

TEST(NoIommuWithoutPrivilege, NobodyOpensIt) {
  sim::Kernel kernel(half_a_host(true, 1 << 20));
  EXPECT_EQ(kernel.open("/dev/vfio/noiommu-1", O_RDWR), -EPERM);
  EXPECT_EQ(kernel.open("/dev/vfio/devices/noiommu-vfio0", O_RDWR), -EPERM);
}

}  // namespace noiommu_test
}  // namespace postern
