// SPDX-License-Identifier: Apache-2.0
// The raw sides of the benchmarks in a guest: what a program without a library would write. An error ends the program.
#pragma once

#include <fcntl.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <postern/binding.hpp>
#include <postern/format.hpp>
#include <postern/pci_function.hpp>
#include <string>

namespace postern::bench {

[[noreturn]] inline void give_up(const std::string& what) {
  (void)std::fprintf(stderr, "bench: %s\n", what.c_str());
  std::exit(2);
}

inline int checked(int result, const char* what) {
  if (result < 0) give_up(std::string(what) + ": " + errno_name(errno));
  return result;
}

// In a guest under -icount a nanosecond of its clock is one instruction.
inline double instructions() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// A container of type1 or sPAPR.
class RawContainer {
 public:
  RawContainer(const HostDevice& device, unsigned long extension) {
    container_ = checked(::open("/dev/vfio/vfio", O_RDWR), "open /dev/vfio/vfio");
    group_ = checked(::open(("/dev/vfio/" + to_string(*device.iommu_group)).c_str(), O_RDWR), "open the group");
    checked(::ioctl(group_, VFIO_GROUP_SET_CONTAINER, &container_), "VFIO_GROUP_SET_CONTAINER");
    checked(::ioctl(container_, VFIO_SET_IOMMU, extension), "VFIO_SET_IOMMU");
    device_ = checked(::ioctl(group_, VFIO_GROUP_GET_DEVICE_FD, device.name.c_str()), "VFIO_GROUP_GET_DEVICE_FD");
  }
  ~RawContainer() {
    ::close(device_);
    ::close(group_);
    ::close(container_);
  }
  void map(std::uint64_t iova, void* address, std::uint64_t length) {
    vfio_iommu_type1_dma_map map{};
    map.argsz = sizeof map;
    map.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    map.vaddr = reinterpret_cast<std::uintptr_t>(address);
    map.iova = iova;
    map.size = length;
    if (::ioctl(container_, VFIO_IOMMU_MAP_DMA, &map) < 0) give_up("VFIO_IOMMU_MAP_DMA");
  }
  void unmap(std::uint64_t iova, std::uint64_t length) {
    vfio_iommu_type1_dma_unmap unmap{};
    unmap.argsz = sizeof unmap;
    unmap.iova = iova;
    unmap.size = length;
    if (::ioctl(container_, VFIO_IOMMU_UNMAP_DMA, &unmap) < 0 || unmap.size != length) give_up("VFIO_IOMMU_UNMAP_DMA");
  }
  // Required by sPAPR before the first map: version 1 must be enabled, version 2 needs the memory registered.
  void enable() const { checked(::ioctl(container_, VFIO_IOMMU_ENABLE), "VFIO_IOMMU_ENABLE"); }
  void register_memory(void* address, std::uint64_t length) const {
    vfio_iommu_spapr_register_memory memory{};
    memory.argsz = sizeof memory;
    memory.vaddr = reinterpret_cast<std::uintptr_t>(address);
    memory.size = length;
    checked(::ioctl(container_, VFIO_IOMMU_SPAPR_REGISTER_MEMORY, &memory), "VFIO_IOMMU_SPAPR_REGISTER_MEMORY");
  }

 private:
  int container_, group_, device_;
};

// An IOAS of iommufd.
class RawIommufd {
 public:
  explicit RawIommufd(const HostDevice& device) {
    iommufd_ = checked(::open("/dev/iommu", O_RDWR), "open /dev/iommu");
    device_ = bind(device).fd;
    iommu_ioas_alloc alloc{};
    alloc.size = sizeof alloc;
    checked(::ioctl(iommufd_, IOMMU_IOAS_ALLOC, &alloc), "IOMMU_IOAS_ALLOC");
    ioas_ = alloc.out_ioas_id;
    attach(device_, ioas_);
  }
  ~RawIommufd() {
    if (second_ >= 0) ::close(second_);
    ::close(device_);
    ::close(iommufd_);
  }
  // Attaches a second device, with a page table of its own for the same IOAS.
  void attach_second(const HostDevice& device) {
    const Bound bound = bind(device);
    second_ = bound.fd;
    iommu_hwpt_alloc alloc{};
    alloc.size = sizeof alloc;
    alloc.dev_id = bound.id;
    alloc.pt_id = ioas_;
    checked(::ioctl(iommufd_, IOMMU_HWPT_ALLOC, &alloc), "IOMMU_HWPT_ALLOC");
    attach(second_, alloc.out_hwpt_id);
  }
  void map(std::uint64_t iova, void* address, std::uint64_t length) {
    iommu_ioas_map map{};
    map.size = sizeof map;
    map.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
    map.ioas_id = ioas_;
    map.user_va = reinterpret_cast<std::uintptr_t>(address);
    map.length = length;
    map.iova = iova;
    if (::ioctl(iommufd_, IOMMU_IOAS_MAP, &map) < 0) give_up("IOMMU_IOAS_MAP");
  }
  void map_file(std::uint64_t iova, int fd, std::uint64_t offset, std::uint64_t length) {
    iommu_ioas_map_file map{};
    map.size = sizeof map;
    map.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE;
    map.ioas_id = ioas_;
    map.fd = fd;
    map.start = offset;
    map.length = length;
    map.iova = iova;
    if (::ioctl(iommufd_, IOMMU_IOAS_MAP_FILE, &map) < 0) give_up("IOMMU_IOAS_MAP_FILE");
  }
  void unmap(std::uint64_t iova, std::uint64_t length) {
    iommu_ioas_unmap unmap{};
    unmap.size = sizeof unmap;
    unmap.ioas_id = ioas_;
    unmap.iova = iova;
    unmap.length = length;
    if (::ioctl(iommufd_, IOMMU_IOAS_UNMAP, &unmap) < 0 || unmap.length != length) give_up("IOMMU_IOAS_UNMAP");
  }

 private:
  struct Bound {
    int fd;
    std::uint32_t id;
  };
  [[nodiscard]] Bound bind(const HostDevice& device) const {
    const int fd = checked(::open(device.cdev->path.c_str(), O_RDWR), "open the cdev");
    vfio_device_bind_iommufd bind{};
    bind.argsz = sizeof bind;
    bind.iommufd = iommufd_;
    checked(::ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind), "VFIO_DEVICE_BIND_IOMMUFD");
    return {fd, bind.out_devid};
  }
  static void attach(int device, std::uint32_t page_table) {
    vfio_device_attach_iommufd_pt attach{};
    attach.argsz = sizeof attach;
    attach.pt_id = page_table;
    checked(::ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), "VFIO_DEVICE_ATTACH_IOMMUFD_PT");
  }

  int iommufd_, device_, second_ = -1;
  std::uint32_t ioas_;
};

// Binds a function to vfio-pci, and leaves it there.
inline HostDevice bind(const PciFunction& function) {
  if (auto binding = bind_to_driver(system_kernel(), function.host, "vfio-pci"); !binding)
    give_up(binding.error().message());
  return find_pci_function(system_kernel(), function.address).value().host;
}

// QEMU's edu, bound to vfio-pci.
inline HostDevice bind_edu() {
  const auto functions = list_pci_functions(system_kernel());
  if (!functions) give_up(functions.error().message());
  for (const PciFunction& function : *functions) {
    if (function.vendor_id == 0x1234 && function.device_id == 0x11e8) return bind(function);
  }
  give_up("this guest has no edu");
}

// The disks, bound to vfio-pci: those alone in their group. Devices behind one port share a group.
inline std::vector<HostDevice> bind_disks() {
  const auto functions = list_pci_functions(system_kernel());
  if (!functions) give_up(functions.error().message());
  std::vector<HostDevice> disks;
  for (const PciFunction& function : *functions) {
    const auto group = find_iommu_group(system_kernel(), function.host.iommu_group.value_or(GroupId{}));
    const bool is_alone = group && group->members.size() == 1;
    if (function.class_code == 0x010802 && (is_alone || disks.empty())) disks.push_back(bind(function));
  }
  if (disks.empty()) give_up("this guest has no NVMe");
  return disks;
}

}  // namespace postern::bench
