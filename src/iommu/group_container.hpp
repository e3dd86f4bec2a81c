// SPDX-License-Identifier: Apache-2.0
// GroupContainer: an open /dev/vfio/vfio and the IOMMU groups in it. The base of the backends that reach devices
// through their group.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <postern/fd.hpp>
#include <postern/host_device.hpp>
#include <postern/iova.hpp>
#include <postern/result.hpp>
#include <span>
#include <string>
#include <string_view>

#include "iommu/backend_container.hpp"
#include "iommu/group.hpp"
#include "iommu/requirement.hpp"
#include "kernel/ioctl.hpp"
#include "kernel/vfio.hpp"

namespace postern {

// The kernel sets a container's IOMMU with the first group, and removes it with the last (vfio_group_detach_container,
// Linux 3.6).
class GroupContainer : public BackendContainer {
 public:
  // A kernel interface to an IOMMU: the kernel's number and postern's version.
  struct Extension {
    std::uint32_t version;
    unsigned long number;
    std::string_view symbol;
  };
  // What a backend needs of the kernel.
  struct Interface {
    std::string_view backend;
    std::string_view module;                // the kernel module that implements it
    std::span<const Extension> extensions;  // newest first
  };

  // Finds which of the extensions the kernel has: the one of ContainerOptions::version, or for 0 the newest.
  // Opens /dev/vfio/vfio and asks the kernel, unless a lookup has.
  struct Opened {
    NodeFd fd;
    Extension extension;
  };
  [[nodiscard]] static Result<Opened> open_node(Kernel& kernel, const Interface& interface,
                                                const ContainerOptions& options, Probed probed = {});
  // What a requirement of the interface finds: its newest version.
  [[nodiscard]] static Result<std::string> find_interface(const Interface& interface, Lookup& lookup);

  [[nodiscard]] Result<void> prepare(const HostDevice& device,
                                     const std::shared_ptr<const KvmVfioDevice>& kvm) override;
  [[nodiscard]] Result<std::unique_ptr<Attached>> open(const HostDevice& device,
                                                       const std::shared_ptr<const KvmVfioDevice>& kvm) const override;
  [[nodiscard]] Result<void> release_unused() override;
  [[nodiscard]] Result<void> detach(Attached& device) override;
  [[nodiscard]] Result<void> close() override;

  [[nodiscard]] const Fd& fd() const noexcept { return fd_.fd(); }

  // VFIO_IOMMU_MAP_DMA and VFIO_IOMMU_UNMAP_DMA. Return 0 or a negated errno; `unmapped` is the length that the kernel
  // reports.
  [[nodiscard]] int map_dma(Iova iova, std::uint64_t length, void* address, Access access) const;
  [[nodiscard]] int unmap_dma(Iova iova, std::uint64_t length, std::uint64_t& unmapped) const;

 protected:
  GroupContainer(Opened opened, const Traits& traits)
      : BackendContainer(opened.fd.kernel(), traits), fd_(std::move(opened.fd)), extension_(opened.extension) {}

  // Called when the first group has joined. On an error the group leaves again.
  [[nodiscard]] virtual Result<void> set_up(const HostDevice& device) = 0;
  // For a VFIO_SET_IOMMU that failed: whether a descriptor that was given is another container's.
  void explain_set_iommu(CallFailed& what) const;
  // Called when the last device was closed, before its group leaves.
  virtual void tear_down() = 0;
  // Whether a group without devices stays while other groups have devices, because leaving would harm them.
  [[nodiscard]] virtual bool keeps_groups() const { return false; }

  [[nodiscard]] const Extension& extension() const noexcept { return extension_; }
  [[nodiscard]] bool has_extension(unsigned long number) const;
  [[nodiscard]] bool has_groups() const noexcept { return !groups_.empty(); }
  [[nodiscard]] bool has_group_of(const HostDevice& device) const;
  [[nodiscard]] std::string groups_text() const;
  // Removes groups without devices; the IOMMU leaves with the last group.
  [[nodiscard]] Result<void> release_idle_groups();

 private:
  [[nodiscard]] Result<Group*> join(const HostDevice& device, GroupId id);
  void remove_from_kvms();

  NodeFd fd_;
  int number_ = fd_.get();  // for maps and unmaps: read without asking whose it is
  Extension extension_;
  std::list<Group> groups_;  // each once; a list, since devices point into it
};

// The node of every container of groups. It stays open for the interface, which is asked for in it.
[[nodiscard]] Node node_of_container(const Lookup&);
[[nodiscard]] bool is_container_open(const Lookup& lookup);
[[nodiscard]] Result<std::string> find_container_node(const Requirement&, Lookup& lookup);
inline constexpr Requirement container_node{
    .key = "container-node", .title = {}, .node = node_of_container, .find = find_container_node};

// The interface of a backend of groups, which the module brings that knows the host's IOMMU.
[[nodiscard]] constexpr Requirement interface_of_groups(Result<std::string> (*find)(const Requirement&, Lookup&)) {
  return {.key = "interface", .title = "IOMMU interface", .applies = is_container_open, .find = find};
}

[[gnu::always_inline]] inline int GroupContainer::map_dma(Iova iova, std::uint64_t length, void* address,
                                                          Access access) const {
  static_assert(static_cast<std::uint32_t>(Access::read) == VFIO_DMA_MAP_FLAG_READ);
  static_assert(static_cast<std::uint32_t>(Access::write) == VFIO_DMA_MAP_FLAG_WRITE);
  vfio_iommu_type1_dma_map map{.argsz = sizeof map,
                               .flags = static_cast<std::uint32_t>(access),
                               .vaddr = reinterpret_cast<std::uintptr_t>(address),
                               .iova = iova.value,
                               .size = length};
  return vfio::iommu_map_dma(kernel(), number_, map);
}

[[gnu::always_inline]] inline int GroupContainer::unmap_dma(Iova iova, std::uint64_t length,
                                                            std::uint64_t& unmapped) const {
  vfio_iommu_type1_dma_unmap unmap{};
  unmap.argsz = sizeof unmap;
  unmap.iova = iova.value;
  unmap.size = length;
  const int result = vfio::iommu_unmap_dma(kernel(), number_, unmap);
  unmapped = unmap.size;
  return result;
}

}  // namespace postern
