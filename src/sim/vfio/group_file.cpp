// SPDX-License-Identifier: Apache-2.0
// GroupFile and ContainerFile: the rules of drivers/vfio/group.c and container.c (Linux 7.3).
#include "sim/vfio/group_file.hpp"

#include <linux/vfio.h>

#include <algorithm>

#include "sim/iommufd/iommufd.hpp"
#include "sim/process/argument.hpp"
#include "sim/spapr/spapr.hpp"
#include "sim/type1/type1.hpp"
#include "sim/vfio/device_file.hpp"

namespace postern::sim {

namespace {

// `is_set`: the container has an IOMMU.
int check_translating(const Machine& machine, unsigned long extension, bool is_set) {
  return machine.tce ? Spapr::check_extension(*machine.tce, extension) : Type1::check_extension(extension, is_set);
}

// vfio_noiommu_ops: translates nothing, and has no calls.
class NoIommu final : public ContainerIommu {
 public:
  [[nodiscard]] int ioctl(unsigned long /*request*/, void* /*argument*/) override { return -ENOTTY; }
  [[nodiscard]] int attach(int /*group*/) override { return 0; }
  void detach(int /*group*/) override {}
};

// Null if no driver has this type.
std::unique_ptr<ContainerIommu> make_iommu(Machine& machine, unsigned long type) {
  if (machine.tce) {
    if (type != VFIO_SPAPR_TCE_IOMMU && type != VFIO_SPAPR_TCE_v2_IOMMU) return nullptr;
    const int version = type == VFIO_SPAPR_TCE_IOMMU ? 1 : 2;
    const auto reset_group = [&machine](int group) { machine.reset_group(group); };
    return std::make_unique<Spapr>(machine.process, machine.regions, *machine.tce, reset_group, version);
  }
  if (type != VFIO_TYPE1_IOMMU && type != VFIO_TYPE1v2_IOMMU) return nullptr;
  const int version = type == VFIO_TYPE1_IOMMU ? 1 : 2;
  return std::make_unique<Type1>(machine.iommu, machine.process, version, machine.mapping_limit);
}

}  // namespace

int ContainerFile::ioctl(unsigned long request, void* argument) {
  switch (request) {
    case VFIO_GET_API_VERSION:
      return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
      return check_extension(reinterpret_cast<std::uintptr_t>(argument));
    case VFIO_SET_IOMMU:
      return set_iommu(reinterpret_cast<std::uintptr_t>(argument));
    default:
      return iommu_ ? iommu_->ioctl(request, argument) : -EINVAL;
  }
}

// vfio_container_ioctl_check_extension: only drivers that are allowed for the groups (vfio_iommu_driver_allowed).
int ContainerFile::check_extension(unsigned long extension) const {
  const bool is_noiommu = machine_.unsafe_noiommu && extension == VFIO_NOIOMMU_IOMMU;
  if (is_noiommu && groups_.empty()) return 1;
  if (!groups_.empty() && is_noiommu_) return is_noiommu ? 1 : 0;
  return check_translating(machine_, extension, iommu_ != nullptr);
}

// vfio_noiommu_open
int ContainerFile::set_noiommu(unsigned long type) {
  if (check_extension(type) <= 0) return -ENODEV;
  if (!machine_.process.is_privileged()) return -EPERM;
  iommu_ = std::make_unique<NoIommu>();
  return 0;
}

// vfio_ioctl_set_iommu, __vfio_container_attach_groups: all or nothing.
int ContainerFile::set_iommu(unsigned long type) {
  if (groups_.empty() || iommu_) return -EINVAL;
  if (is_noiommu_) return set_noiommu(type);
  // An extension of the driver is tried, but is not a type (vfio_iommu_type1_open).
  if (check_translating(machine_, type, false) <= 0) return -ENODEV;
  auto iommu = make_iommu(machine_, type);
  if (!iommu) return -EINVAL;
  for (auto group = groups_.begin(); group != groups_.end(); ++group) {
    const int result = connect(*iommu, *group);
    if (result == 0) continue;
    while (group != groups_.begin()) disconnect(*iommu, *--group);
    return result;
  }
  iommu_ = std::move(iommu);
  return 0;
}

// From here on, the container's domain translates the DMA of a group's devices.
int ContainerFile::connect(ContainerIommu& iommu, int group) {
  if (const int result = iommu.attach(group); result < 0) return result;
  for (Device* device : machine_.devices_of(group)) device->domain = iommu.domain();
  return 0;
}

void ContainerFile::disconnect(ContainerIommu& iommu, int group) {
  for (Device* device : machine_.devices_of(group)) device->domain = nullptr;
  iommu.detach(group);
}

// vfio_container_attach_group
int ContainerFile::attach(Group& group) {
  if (group.is_noiommu && !machine_.process.is_privileged()) return -EPERM;
  if (!groups_.empty() && is_noiommu_ != group.is_noiommu) return -EPERM;
  if (machine_.kernel_owns(group.id) || (group.owner != nullptr && group.owner != this)) return -EPERM;
  const int result = iommu_ ? connect(*iommu_, group.id) : 0;
  if (result < 0) return result;
  group.owner = this;
  is_noiommu_ = group.is_noiommu;
  groups_.insert(group.id);
  return 0;
}

// vfio_group_detach_container: the IOMMU is removed with the last group.
void ContainerFile::detach(Group& group) {
  if (iommu_) disconnect(*iommu_, group.id);
  group.owner = nullptr;
  groups_.erase(group.id);
  if (groups_.empty()) iommu_.reset();
}

GroupFile::GroupFile(Machine& machine, Group& group) : File(own_kind), machine_(machine), group_(group) {
  group_.file = this;
}

// vfio_group_fops_release: no device of it is open in a container now, since that would keep it open.
GroupFile::~GroupFile() {
  if (!is_revoked()) revoke();
}

// vfio_device_remove_group: the last device of the group was unbound from its VFIO driver. An iommufd remains its
// container.
void GroupFile::revoke() {
  leave_container();
  group_.file = nullptr;
}

void GroupFile::leave_container() {
  if (container_) container_->detach(group_);
  container_.reset();
}

int GroupFile::ioctl(unsigned long request, void* argument) {
  switch (request) {
    case VFIO_GROUP_GET_STATUS:
      return with_argument<vfio_group_status>(machine_.process, argument, sizeof(vfio_group_status),
                                              [this](auto& status) { return get_status(status); });
    case VFIO_GROUP_SET_CONTAINER:
      return set_container(argument);
    case VFIO_GROUP_UNSET_CONTAINER:
      return unset_container();
    case VFIO_GROUP_GET_DEVICE_FD:
      return open_device(static_cast<const char*>(argument));
    default:
      return -ENOTTY;
  }
}

// vfio_group_ioctl_get_status
int GroupFile::get_status(vfio_group_status& status) const {
  if (status.argsz < sizeof status) return -EINVAL;
  if (is_revoked()) return -ENODEV;
  status.flags = 0;
  if (has_iommu()) {
    status.flags = VFIO_GROUP_FLAGS_CONTAINER_SET | VFIO_GROUP_FLAGS_VIABLE;
  } else if (!machine_.kernel_owns(group_.id) && group_.owner == nullptr) {
    status.flags = VFIO_GROUP_FLAGS_VIABLE;
  }
  return 0;
}

// vfio_group_ioctl_set_container
int GroupFile::set_container(const void* argument) {
  int fd = -1;
  if (machine_.process.copy_from_user(&fd, argument, sizeof fd) < 0) return -EFAULT;
  const auto file = machine_.process.files.find_any(fd);
  if (!file) return -EBADF;
  if (has_iommu()) return -EINVAL;
  if (is_revoked()) return -ENODEV;
  int result = -EBADFD;
  if (const auto container = file_as<ContainerFile>(file)) {
    result = container->attach(group_);
    if (result == 0) container_ = container;
  } else if (const auto iommufd = file_as<Iommufd>(file)) {
    result = group_.is_noiommu ? iommufd->vfio_compat_set_no_iommu() : iommufd->vfio_compat_ioas_create();
    if (result == 0) iommufd_ = iommufd;
  }
  return result;
}

// vfio_group_ioctl_unset_container: open devices keep the group in a VFIO container, but not in an iommufd.
int GroupFile::unset_container() {
  if (!has_iommu()) return -EINVAL;
  const auto members = machine_.devices_of(group_.id);
  if (container_ && std::any_of(members.begin(), members.end(), [](const Device* each) { return each->opens > 0; })) {
    return -EBUSY;
  }
  leave_container();
  iommufd_.reset();
  return 0;
}

// vfio_group_ioctl_get_device_fd
int GroupFile::open_device(const char* argument) {
  std::string name;
  if (const int result = machine_.process.read_string(argument, name); result < 0) return result;
  Device* device = nullptr;
  for (Device* each : machine_.devices_of(group_.id)) {
    const int result = each->minor ? each->ops->match(name) : 0;
    if (result < 0) return result;
    if (result > 0) device = each;
  }
  if (device == nullptr || is_revoked()) return -ENODEV;
  if (!has_iommu()) return -EINVAL;
  if (container_ && !container_->has_iommu()) return -EINVAL;  // vfio_group_use_container
  const auto file = std::make_shared<DeviceFile>(machine_, *device);
  if (const int result = file->open_by_group(shared_from_this(), iommufd_); result < 0) return result;
  return machine_.process.files.give(file);
}

}  // namespace postern::sim
