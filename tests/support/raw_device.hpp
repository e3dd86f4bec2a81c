// SPDX-License-Identifier: Apache-2.0
// RawDevice: a device opened with plain system calls, to make calls that the library does not make.
#pragma once

#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>

#include <cstdint>
#include <cstring>
#include <postern/fd.hpp>
#include <postern/kernel.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace postern::test {

// Throws if a call fails.
class RawDevice {
 public:
  // Opens its cdev, and attaches it to its own IOAS.
  RawDevice(Kernel& kernel, const std::string& cdev) : iommu_(open(kernel, "/dev/iommu")), fd_(open(kernel, cdev)) {
    vfio_device_bind_iommufd bind{.argsz = sizeof bind, .iommufd = iommu_.get()};
    must(ioctl(VFIO_DEVICE_BIND_IOMMUFD, &bind), "VFIO_DEVICE_BIND_IOMMUFD");
    iommu_ioas_alloc ioas{.size = sizeof ioas};
    must(kernel.ioctl(iommu_.get(), IOMMU_IOAS_ALLOC, &ioas), "IOMMU_IOAS_ALLOC");
    ioas_ = ioas.out_ioas_id;
    vfio_device_attach_iommufd_pt attach{.argsz = sizeof attach, .flags = 0, .pt_id = ioas_};
    must(ioctl(VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
  }
  // Opens it through its group, in its own type1 container.
  RawDevice(Kernel& kernel, const std::string& group, std::string name)
      : iommu_(open(kernel, "/dev/vfio/vfio")), group_(open(kernel, group)) {
    int container = iommu_.get();
    must(kernel.ioctl(group_.get(), VFIO_GROUP_SET_CONTAINER, &container), "VFIO_GROUP_SET_CONTAINER");
    must(kernel.ioctl(iommu_.get(), VFIO_SET_IOMMU, reinterpret_cast<void*>(VFIO_TYPE1v2_IOMMU)), "VFIO_SET_IOMMU");
    fd_ = Fd(kernel, must(kernel.ioctl(group_.get(), VFIO_GROUP_GET_DEVICE_FD, name.data()), name));
  }

  [[nodiscard]] Kernel& kernel() const { return fd_.kernel(); }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] int ioctl(unsigned long request, void* argument) const {
    return kernel().ioctl(fd(), request, argument);
  }

  // VFIO_DEVICE_FEATURE; `flags` is the feature and the operation.
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

  // Maps whole pages of memory for the device. Only if opened by its cdev.
  void map(std::uint64_t iova, void* memory, std::uint64_t length) const {
    iommu_ioas_map map{.size = sizeof map,
                       .flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE,
                       .ioas_id = ioas_,
                       .__reserved = 0,
                       .user_va = reinterpret_cast<std::uintptr_t>(memory),
                       .length = length,
                       .iova = iova};
    must(kernel().ioctl(iommu_.get(), IOMMU_IOAS_MAP, &map), "IOMMU_IOAS_MAP");
  }

  // Access to registers in BAR 0, by default of 32 bits, and to config space.
  static constexpr std::uint64_t config = std::uint64_t{7} << 40;
  template <typename T = std::uint32_t>
  [[nodiscard]] T read(std::uint64_t offset) const {
    T value = 0;
    must(static_cast<int>(kernel().pread(fd(), &value, sizeof value, offset)), "pread");
    return value;
  }
  template <typename T>
  void write(std::uint64_t offset, T value) const {
    must(static_cast<int>(kernel().pwrite(fd(), &value, sizeof value, offset)), "pwrite");
  }

 private:
  static int must(int result, const std::string& what) {
    if (result < 0) throw std::runtime_error(what + ": " + std::strerror(-result));
    return result;
  }
  static Fd open(Kernel& kernel, const std::string& path) {
    return {kernel, must(kernel.open(path.c_str(), O_RDWR), path)};
  }

  Fd iommu_;  // the iommufd, or the container
  Fd group_;
  Fd fd_;
  std::uint32_t ioas_ = 0;
};

}  // namespace postern::test
