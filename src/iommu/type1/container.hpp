// SPDX-License-Identifier: Apache-2.0
// Type1Container: an address space of the type1 backend, on /dev/vfio/vfio and the groups in it.
#pragma once

#include <list>
#include <postern/container.hpp>

#include "iommu/group.hpp"

namespace postern::type1 {

class Type1Container final : public Container {
 public:
  // `extension` is VFIO_TYPE1v2_IOMMU, or VFIO_TYPE1_IOMMU where the kernel has no v2.
  Type1Container(Fd container, unsigned long extension);

  [[nodiscard]] Facts facts() const override;

 private:
  [[nodiscard]] int do_map(Iova iova, std::uint64_t length, void* address, Access access) override;
  [[nodiscard]] int do_unmap(Iova iova, std::uint64_t length) override;
  [[nodiscard]] int do_unmap_all() override;
  [[nodiscard]] Result<Fd> do_attach(const HostDevice& device) override;
  [[nodiscard]] Result<void> do_detach(const std::string& device, Fd fd) override;
  [[nodiscard]] Result<void> do_close() override;
  [[nodiscard]] Result<ContainerLimits> read_limits() override;

  [[nodiscard]] Result<Group*> join_group(const HostDevice& device, GroupId id);
  [[nodiscard]] Result<void> leave_group(Group& group);

  struct Member {
    std::string device;
    Group* group;
  };

  Fd container_;
  unsigned long extension_;
  bool unmaps_all_;          // VFIO_UNMAP_ALL
  std::list<Group> groups_;  // of the attached devices, each once; a list, since members point into it
  std::vector<Member> members_;
};

}  // namespace postern::type1
