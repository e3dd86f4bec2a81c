// SPDX-License-Identifier: Apache-2.0
// KernelContainer: an open /dev/vfio/vfio, the IOMMU groups in it, and which devices of them are attached. For the
// backends that reach devices through their group.
#pragma once

#include <functional>
#include <list>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "iommu/group.hpp"
#include "kernel/vfio.hpp"

namespace postern {

class KernelContainer {
 public:
  // The kernel gives a container its IOMMU with the first group, and takes it away with the last
  // (vfio_group_detach_container, Linux 3.6): these run where that happens. On an error of set_up the group leaves
  // again; tear_down runs while the groups are still there, and the last device is closed. A group without devices
  // stays while keeps_groups says so and there are others with devices: where its leaving would harm them.
  struct Hooks {
    std::function<Result<void>(const HostDevice& device)> set_up;
    std::function<void()> tear_down;
    std::function<bool()> keeps_groups = [] { return false; };
  };

  // One of the ways in which the kernel knows an IOMMU: its own number of it, and postern's.
  struct Extension {
    std::uint32_t version;
    unsigned long number;
    std::string_view symbol;
  };
  // What a backend wants of the kernel.
  struct Interface {
    std::string_view backend;
    std::string_view module;                // the kernel module that brings it
    bool is_for_power;                      // and for no other processor; else for those that are none
    std::span<const Extension> extensions;  // newest first
  };

  // Finds which of the extensions the kernel has: the one of that version, or for 0 the first. Opens /dev/vfio/vfio for
  // that, unless probe() has.
  struct Opened {
    Fd fd;
    Extension extension;
  };
  [[nodiscard]] static Result<Opened> open(Kernel& kernel, const Interface& interface, std::uint32_t version,
                                           Fd node = {});
  // Whether it can be used here: by this device or, without one, for any. Gives the open /dev/vfio/vfio.
  [[nodiscard]] static Result<Fd> probe(Kernel& kernel, const Interface& interface, const HostDevice* device);

  KernelContainer(Fd fd, Hooks hooks) : fd_(std::move(fd)), hooks_(std::move(hooks)) {}

  [[nodiscard]] const Fd& fd() const noexcept { return fd_; }
  [[nodiscard]] bool has_extension(unsigned long number) const;
  [[nodiscard]] bool empty() const noexcept { return groups_.empty(); }
  [[nodiscard]] bool has_group_of(const HostDevice& device) const;
  [[nodiscard]] std::string groups_text() const;
  void close() { fd_.reset(); }

  // VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA. What they answer; `unmapped` is how much the kernel says it took back.
  [[nodiscard]] int map_dma(Iova iova, std::uint64_t length, void* address, Access access) const;
  [[nodiscard]] int unmap_dma(Iova iova, std::uint64_t length, std::uint64_t& unmapped) const;

  // The device's fd; its group is in the container from then on. On an error everything is as it was.
  [[nodiscard]] Result<Fd> attach(const HostDevice& device);
  // The group of an attached device; null where it is not attached.
  [[nodiscard]] const Group* group_of(const std::string& device) const;
  // Closes the device; its group leaves with its last device, if it may.
  [[nodiscard]] Result<void> detach(const std::string& device, Fd fd);
  // Groups without devices leave, and the IOMMU with the last of all.
  [[nodiscard]] Result<void> release_idle_groups();

 private:
  struct Member {
    std::string device;
    Group* group;
  };
  [[nodiscard]] Result<Group*> join(const HostDevice& device, GroupId id);

  Fd fd_;
  Hooks hooks_;
  std::list<Group> groups_;  // each once; a list, since members point into it
  std::vector<Member> members_;
};

[[gnu::always_inline]] inline int KernelContainer::map_dma(Iova iova, std::uint64_t length, void* address,
                                                           Access access) const {
  static_assert(static_cast<std::uint32_t>(Access::read) == VFIO_DMA_MAP_FLAG_READ);
  static_assert(static_cast<std::uint32_t>(Access::write) == VFIO_DMA_MAP_FLAG_WRITE);
  vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                               .flags = static_cast<std::uint32_t>(access),
                               .vaddr = reinterpret_cast<std::uintptr_t>(address),
                               .iova = iova.value,
                               .size = length};
  return vfio::iommu_map_dma(fd_.kernel(), fd_.get(), map);
}

[[gnu::always_inline]] inline int KernelContainer::unmap_dma(Iova iova, std::uint64_t length,
                                                             std::uint64_t& unmapped) const {
  vfio_iommu_type1_dma_unmap unmap{};
  unmap.argsz = sizeof unmap;
  unmap.iova = iova.value;
  unmap.size = length;
  const int result = vfio::iommu_unmap_dma(fd_.kernel(), fd_.get(), unmap);
  unmapped = unmap.size;
  return result;
}

}  // namespace postern
