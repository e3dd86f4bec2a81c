// SPDX-License-Identifier: Apache-2.0
// MockDevices: the real kernel, with cdevs of devices behind iommufd's mock IOMMU, which has dirty bits.
#pragma once

#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/sysmacros.h>

#include <map>
#include <postern-sim/faults.hpp>
#include <stdexcept>

namespace postern::test {

// The argument of the kernel's test ioctl (CONFIG_IOMMUFD_TEST), as far as used here: an operation, an id, and up to
// six words for the operation.
struct MockCommand {
  std::uint32_t size = sizeof(MockCommand);
  std::uint32_t op = 0;
  std::uint32_t id = 0;
  std::uint32_t reserved = 0;
  union {
    struct {  // op 12, id is an IOAS: creates a device, binds it, and attaches it to that IOAS
      std::uint32_t device, hwpt, bound, flags;
    } make;
    struct {  // op 10, id is a device: attaches it to another page table
      std::uint32_t hwpt;
    } replace;
    struct {  // op 13, id is a page table: marks the pages of a bitmap as written
      std::uint32_t flags;
      alignas(8) std::uint64_t iova, length, page_size, bitmap, marked;
    } dirty;
    std::uint64_t words[6] = {};
  };
  std::uint32_t last = 0;
};
static_assert(sizeof(MockCommand) == 72);

// Implements open, VFIO_DEVICE_BIND_IOMMUFD, _ATTACH_ and _DETACH_IOMMUFD_PT of a mock device by the test ioctl. All
// other calls go to the kernel.
class MockDevices : public sim::FailingKernel {
 public:
  MockDevices() : FailingKernel(system_kernel()) {}

  // With `apart` the device shares no page table, as if it were behind another IOMMU.
  HostDevice add(const std::string& name, bool has_dirty_bits, bool apart = false) {
    const auto minor = static_cast<unsigned>(devices_.size());
    const VfioCdev cdev{.name = "mock" + std::to_string(minor),
                        .path = "/dev/vfio/devices/mock" + std::to_string(minor),
                        .number = ::makedev(511, minor)};
    devices_[cdev.path] = {.number = *cdev.number, .has_dirty_bits = has_dirty_bits, .apart = apart};
    return {.name = name,
            .bus = "pci",
            .driver = "vfio-pci",
            .iommu_group = GroupId{1000 + minor},
            .cdev = cdev,
            .is_vfio = true};
  }

  // Makes the device write to a page.
  void write(const HostDevice& host, Iova iova) {
    const Mock& mock = devices_.at(host.cdev->path);
    std::uint64_t bit = 1;
    MockCommand command{.op = 13, .id = mock.hwpt};
    command.dirty = {.flags = 0,
                     .iova = iova.value,
                     .length = 4096,
                     .page_size = 4096,
                     .bitmap = reinterpret_cast<std::uintptr_t>(&bit),
                     .marked = 0};
    if (run(mock.iommufd, command) < 0 || command.dirty.marked != 1) throw std::runtime_error("no page was marked");
  }

  int open(const char* path, int flags) override {
    const auto mock = devices_.find(path);
    if (mock == devices_.end()) return FailingKernel::open(path, flags);
    const int fd = eventfd();
    if (fd >= 0) mock->second.fd = fd;
    return fd;
  }
  int status(const std::string& path, FileStatus& status) override {
    const auto mock = devices_.find(path);
    if (mock == devices_.end()) return FailingKernel::status(path, status);
    status = {.device = mock->second.number};
    return 0;
  }
  int access(const std::string& path, int mode) override {
    return devices_.count(path) != 0 ? 0 : FailingKernel::access(path, mode);
  }
  int close(int fd) override {
    if (Mock* mock = find(fd)) unbind(*mock);
    return FailingKernel::close(fd);
  }
  int ioctl(int fd, unsigned long request, void* argument) override {
    Mock* const mock = find(fd);
    if (mock == nullptr) return FailingKernel::ioctl(fd, request, argument);
    switch (request) {
      case VFIO_DEVICE_BIND_IOMMUFD:
        return bind(*mock, *static_cast<vfio_device_bind_iommufd*>(argument));
      case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
        return attach(*mock, static_cast<vfio_device_attach_iommufd_pt*>(argument)->pt_id);
      case VFIO_DEVICE_DETACH_IOMMUFD_PT:
        return move(*mock, mock->empty_ioas);
      case VFIO_DEVICE_GET_INFO:
        return 0;
      default:
        return -ENOTTY;
    }
  }

 private:
  struct Mock {
    dev_t number = 0;
    bool has_dirty_bits = false;
    bool apart = false;
    int fd = -1;
    int iommufd = -1;
    std::uint32_t device = 0;
    std::uint32_t empty_ioas = 0;  // for a device that is detached: a mock device is always attached
    std::uint32_t hwpt = 0;
  };

  Mock* find(int fd) {
    for (auto& [path, mock] : devices_) {
      if (mock.fd == fd) return &mock;
    }
    return nullptr;
  }

  int run(int iommufd, MockCommand& command) {
    const unsigned long request = _IO(IOMMUFD_TYPE, IOMMUFD_CMD_BASE + 32);
    return FailingKernel::ioctl(iommufd, request, &command);
  }

  int bind(Mock& mock, vfio_device_bind_iommufd& bind) {
    mock.iommufd = bind.iommufd;
    iommu_ioas_alloc ioas{.size = sizeof ioas, .flags = 0, .out_ioas_id = 0};
    if (const int result = FailingKernel::ioctl(mock.iommufd, IOMMU_IOAS_ALLOC, &ioas); result < 0) return result;
    mock.empty_ioas = ioas.out_ioas_id;
    MockCommand command{.op = 12, .id = mock.empty_ioas};
    constexpr std::uint32_t no_dirty = 1;
    command.make = {.device = 0, .hwpt = 0, .bound = 0, .flags = mock.has_dirty_bits ? 0 : no_dirty};
    if (const int result = run(mock.iommufd, command); result < 0) return result;
    mock.device = command.make.device;
    bind.out_devid = command.make.bound;
    return 0;
  }

  int attach(Mock& mock, std::uint32_t hwpt) {
    for (const auto& [path, other] : devices_) {
      if (&other != &mock && other.hwpt == hwpt && (mock.apart || other.apart)) return -EINVAL;
    }
    const int result = move(mock, hwpt);
    if (result == 0) mock.hwpt = hwpt;
    return result;
  }

  int move(Mock& mock, std::uint32_t page_table) {
    MockCommand command{.op = 10, .id = mock.device};
    command.replace = {.hwpt = page_table};
    mock.hwpt = 0;
    return run(mock.iommufd, command);
  }

  void unbind(Mock& mock) {
    for (const std::uint32_t id : {mock.device, mock.empty_ioas}) {
      iommu_destroy destroy{.size = sizeof destroy, .id = id};
      if (id != 0) (void)FailingKernel::ioctl(mock.iommufd, IOMMU_DESTROY, &destroy);
    }
    mock = {.number = mock.number, .has_dirty_bits = mock.has_dirty_bits, .apart = mock.apart};
  }

  std::map<std::string, Mock> devices_;
};

}  // namespace postern::test
