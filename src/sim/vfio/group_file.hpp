// SPDX-License-Identifier: Apache-2.0
// GroupFile and ContainerFile: open nodes of an IOMMU group and of /dev/vfio/vfio. A group may have an iommufd as its
// container instead.
#pragma once

#include <linux/vfio.h>

#include <memory>
#include <set>

#include "sim/iommu/container_iommu.hpp"
#include "sim/machine/machine.hpp"
#include "sim/process/file.hpp"

namespace postern::sim {

class Iommufd;

class ContainerFile final : public File {
 public:
  static constexpr Kind own_kind = Kind::container;

  explicit ContainerFile(Machine& machine) : File(own_kind), machine_(machine) {}

  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;
  [[nodiscard]] int attach(Group& group);
  void detach(Group& group);
  [[nodiscard]] bool has_iommu() const noexcept { return iommu_ != nullptr; }

 private:
  [[nodiscard]] int check_extension(unsigned long extension) const;
  [[nodiscard]] int set_iommu(unsigned long type);
  [[nodiscard]] int set_noiommu(unsigned long type);
  [[nodiscard]] int connect(ContainerIommu& iommu, int group);
  void disconnect(ContainerIommu& iommu, int group);

  Machine& machine_;
  std::set<int> groups_;
  bool is_noiommu_ = false;                // whether its groups are in no-IOMMU mode
  std::unique_ptr<ContainerIommu> iommu_;  // null: not set yet
};

class GroupFile final : public File, public OpenGroup, public std::enable_shared_from_this<GroupFile> {
 public:
  static constexpr Kind own_kind = Kind::group;

  GroupFile(Machine& machine, Group& group);
  ~GroupFile() override;

  [[nodiscard]] int ioctl(unsigned long request, void* argument) override;
  // Null: it has lost its node.
  [[nodiscard]] const Group* group() const noexcept { return is_revoked() ? nullptr : &group_; }

  // Also removes it from its container.
  void revoke() override;

 private:
  [[nodiscard]] bool is_revoked() const noexcept { return group_.file != this; }
  [[nodiscard]] bool has_iommu() const noexcept { return container_ || iommufd_; }
  void leave_container();
  [[nodiscard]] int get_status(vfio_group_status& status) const;
  [[nodiscard]] int set_container(const void* argument);
  [[nodiscard]] int unset_container();
  [[nodiscard]] int open_device(const char* argument);

  Machine& machine_;
  Group& group_;
  // Its container: at most one of them. Devices bound to the iommufd stay bound when the group leaves it.
  std::shared_ptr<ContainerFile> container_;
  std::shared_ptr<Iommufd> iommufd_;
};

}  // namespace postern::sim
