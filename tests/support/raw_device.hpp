// SPDX-License-Identifier: Apache-2.0
// RawDevice: a device opened by its cdev with system calls alone, for what the library does not ask a kernel.
#pragma once

#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <cstdint>
#include <cstring>
#include <postern/kernel.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace postern::test {

// Attached to an IOAS of its own. Throws where the kernel refuses.
class RawDevice {
 public:
  RawDevice(Kernel& kernel, const std::string& cdev) : kernel_(kernel) {
    iommufd_ = must(kernel.open("/dev/iommu", O_RDWR), "/dev/iommu");
    fd_ = must(kernel.open(cdev.c_str(), O_RDWR), cdev);
    vfio_device_bind_iommufd bind{.argsz = sizeof bind, .iommufd = iommufd_};
    must(ioctl(VFIO_DEVICE_BIND_IOMMUFD, &bind), "VFIO_DEVICE_BIND_IOMMUFD");
    iommu_ioas_alloc ioas{.size = sizeof ioas};
    must(kernel.ioctl(iommufd_, IOMMU_IOAS_ALLOC, &ioas), "IOMMU_IOAS_ALLOC");
    ioas_ = ioas.out_ioas_id;
    vfio_device_attach_iommufd_pt attach{.argsz = sizeof attach, .flags = 0, .pt_id = ioas_};
    must(ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
  }
  RawDevice(const RawDevice&) = delete;
  RawDevice& operator=(const RawDevice&) = delete;
  ~RawDevice() {
    kernel_.close(fd_);
    kernel_.close(iommufd_);
  }

  [[nodiscard]] Kernel& kernel() const { return kernel_; }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] int ioctl(unsigned long request, void* argument) const { return kernel_.ioctl(fd_, request, argument); }

  // VFIO_DEVICE_FEATURE: flags say which, and what about it.
  [[nodiscard]] int feature(std::uint32_t flags) const {
    vfio_device_feature head{.argsz = sizeof head, .flags = flags};
    return ioctl(VFIO_DEVICE_FEATURE, &head);
  }
  template <typename Data>
  [[nodiscard]] int feature(std::uint32_t flags, Data& data, std::size_t length = sizeof(Data)) const {
    std::vector<std::uint64_t> words((sizeof(vfio_device_feature) + sizeof data + 7) / 8);
    auto& head = *reinterpret_cast<vfio_device_feature*>(words.data());
    head.argsz = static_cast<std::uint32_t>(sizeof head + length);
    head.flags = flags;
    std::memcpy(head.data, &data, sizeof data);
    const int result = ioctl(VFIO_DEVICE_FEATURE, &head);
    std::memcpy(&data, head.data, sizeof data);
    return result;
  }

  // Lets the device reach memory at this iova; whole pages.
  void map(std::uint64_t iova, void* memory, std::uint64_t length) const {
    iommu_ioas_map map{.size = sizeof map,
                       .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                       .ioas_id = ioas_,
                       .__reserved = 0,
                       .user_va = reinterpret_cast<std::uintptr_t>(memory),
                       .length = length,
                       .iova = iova};
    must(kernel_.ioctl(iommufd_, IOMMU_IOAS_MAP, &map), "IOMMU_IOAS_MAP");
  }

  // Registers of 32 bits in BAR 0; config space.
  static constexpr std::uint64_t config = std::uint64_t{7} << 40;
  [[nodiscard]] std::uint32_t read(std::uint64_t offset) const {
    std::uint32_t value = 0;
    must(static_cast<int>(kernel_.pread(fd_, &value, sizeof value, offset)), "pread");
    return value;
  }
  template <typename T>
  void write(std::uint64_t offset, T value) const {
    must(static_cast<int>(kernel_.pwrite(fd_, &value, sizeof value, offset)), "pwrite");
  }

 private:
  static int must(int result, const std::string& what) {
    if (result < 0) throw std::runtime_error(what + ": " + std::strerror(-result));
    return result;
  }

  Kernel& kernel_;
  int iommufd_ = -1;
  int fd_ = -1;
  std::uint32_t ioas_ = 0;
};

}  // namespace postern::test
