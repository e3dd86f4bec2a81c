// SPDX-License-Identifier: Apache-2.0
// DeviceFile: opens a device by its group or its cdev, and handles the ioctls of the cdev (vfio_main.c, device_cdev.c,
// iommufd.c; Linux 7.3).
#include "sim/vfio/device_file.hpp"

#include <algorithm>
#include <cstring>

#include "sim/iommufd/iommufd.hpp"
#include "sim/process/argument.hpp"

namespace postern::sim {
namespace {

// access_ok, which vfs_read and vfs_write check first.
bool is_user_memory(const void* buffer) { return reinterpret_cast<std::uintptr_t>(buffer) >> 63 == 0; }

}  // namespace

// vfio_df_group_open. A device without an IOMMU is not bound to the iommufd, which must have no IOAS for VFIO's ioctls.
int DeviceFile::open_by_group(std::shared_ptr<File> group, const std::shared_ptr<Iommufd>& iommufd) {
  is_cdev_ = false;
  if (iommufd && device_.opens == 0) {
    if (device_.has_iommu()) {
      if (const int result = bind_to_compat(iommufd); result < 0) return result;
    } else if (!machine_.process.is_privileged() || iommufd->has_vfio_compat_ioas()) {
      return -EPERM;
    }
  }
  if (!iommufd) group_ = std::move(group);  // vfio_group_use_container
  enable();
  return 0;
}

// vfio_df_iommufd_bind, vfio_iommufd_compat_attach_ioas
int DeviceFile::bind_to_compat(const std::shared_ptr<Iommufd>& iommufd) {
  std::uint32_t id = 0;
  if (const int result = bind_to(iommufd, id); result < 0) return result;
  const int result = iommufd->vfio_compat_attach(device_);
  if (result < 0) unbind();
  return result;
}

// iommufd_device_bind claims the DMA of the group.
int DeviceFile::bind_to(const std::shared_ptr<Iommufd>& iommufd, std::uint32_t& id) {
  Group& group = machine_.groups[device_.group()];
  if (machine_.kernel_owns(group.id) || (group.owner != nullptr && group.owner != iommufd.get())) return -EPERM;
  if (const int result = iommufd->bind(device_, id); result < 0) return result;
  group.owner = iommufd.get();
  device_.iommufd = iommufd;
  return 0;
}

// vfio_df_iommufd_unbind
void DeviceFile::unbind() {
  const auto iommufd = std::move(device_.iommufd);
  device_.iommufd.reset();
  iommufd->unbind(device_);
  if (!iommufd->has_group(device_.group())) machine_.groups[device_.group()].owner = nullptr;
}

// vfio_df_open: a device that is open by its group may be opened again by it.
void DeviceFile::enable() {
  usable_ = true;
  if (device_.opens++ == 0) device_.ops->open_device();
  machine_.changed.notify_all();
}

void DeviceFile::release() {
  if (!usable_) return;
  usable_ = false;
  if (--device_.opens == 0) {
    device_.ops->close_device();
    if (device_.iommufd) unbind();
  }
  if (is_cdev_) {
    device_.cdev_opened = false;
    --machine_.groups[device_.group()].open_cdevs;
  }
  group_.reset();
  machine_.changed.notify_all();
}

int DeviceFile::ioctl(unsigned long request, void* argument) {
  Process& process = machine_.process;
  // A kernel with sPAPR has no cdevs (CONFIG_VFIO_DEVICE_CDEV depends on !SPAPR_TCE_IOMMU).
  if (request == VFIO_DEVICE_BIND_IOMMUFD && !machine_.tce) return bind(argument);
  if (!usable_) return -EINVAL;
  device_.ops->resume();
  if (is_cdev_ && request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
    return with_argument<vfio_device_attach_iommufd_pt>(process, argument,
                                                        offsetof(vfio_device_attach_iommufd_pt, pasid),
                                                        [this](auto& wanted) { return attach(wanted); });
  }
  if (is_cdev_ && request == VFIO_DEVICE_DETACH_IOMMUFD_PT) {
    return with_argument<vfio_device_detach_iommufd_pt>(process, argument,
                                                        offsetof(vfio_device_detach_iommufd_pt, pasid),
                                                        [this](auto& wanted) { return detach(wanted); });
  }
  return request == VFIO_DEVICE_FEATURE ? feature(argument) : device_.ops->ioctl(request, argument);
}

ssize_t DeviceFile::pread(void* buffer, std::size_t length, std::uint64_t offset) {
  if (!is_user_memory(buffer)) return -EFAULT;
  if (!usable_) return -EINVAL;
  device_.ops->resume();
  return device_.ops->read(buffer, length, offset);
}

ssize_t DeviceFile::pwrite(const void* buffer, std::size_t length, std::uint64_t offset) {
  if (!is_user_memory(buffer)) return -EFAULT;
  if (!usable_) return -EINVAL;
  device_.ops->resume();
  return device_.ops->write(buffer, length, offset);
}

std::intptr_t DeviceFile::mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) {
  return usable_ ? device_.ops->mmap(address, length, protection, flags, offset) : -EINVAL;
}

// vfio_df_ioctl_attach_pt
int DeviceFile::attach(vfio_device_attach_iommufd_pt& attach) {
  constexpr std::uint32_t pasid = VFIO_DEVICE_ATTACH_PASID;
  constexpr auto least = offsetof(vfio_device_attach_iommufd_pt, pasid);
  if (attach.argsz < least || (attach.flags & ~pasid) != 0) return -EINVAL;
  if ((attach.flags & pasid) != 0) {
    return attach.argsz < sizeof attach ? -EINVAL : device_.iommufd->attach_pasid(attach.pasid, attach.pt_id);
  }
  std::uint32_t page_table = attach.pt_id;
  const int result = device_.iommufd->attach(device_, page_table);
  if (result == 0) attach.pt_id = page_table;
  return result;
}

// vfio_df_ioctl_detach_pt. No PASID is ever attached.
int DeviceFile::detach(const vfio_device_detach_iommufd_pt& detach) {
  constexpr std::uint32_t pasid = VFIO_DEVICE_DETACH_PASID;
  constexpr auto least = offsetof(vfio_device_detach_iommufd_pt, pasid);
  if (detach.argsz < least || (detach.flags & ~pasid) != 0) return -EINVAL;
  if ((detach.flags & pasid) != 0) return detach.argsz < sizeof detach ? -EINVAL : 0;
  device_.iommufd->detach(device_);
  return 0;
}

// vfio_df_ioctl_bind_iommufd
int DeviceFile::bind(void* argument) {
  Process& process = machine_.process;
  const auto address = reinterpret_cast<std::uintptr_t>(argument);
  vfio_device_bind_iommufd bind{};
  if (process.copy_from_user(&bind.argsz, argument, sizeof bind.argsz) < 0) return -EFAULT;
  if (bind.argsz < offsetof(vfio_device_bind_iommufd, out_devid) + sizeof bind.out_devid) return -EINVAL;
  if (const int result = process.copy_struct(&bind, sizeof bind, argument, bind.argsz); result < 0) return result;
  constexpr std::uint32_t known = VFIO_DEVICE_BIND_FLAG_TOKEN;
  if (bind.iommufd < 0 || (bind.flags & ~known) != 0 || !is_cdev_) return -EINVAL;
  Group& group = machine_.groups[device_.group()];
  if (group.file != nullptr) return -EBUSY;  // vfio_device_block_group
  if (usable_) return -EINVAL;
  // vfio_df_check_token: a function without virtual functions has no token.
  if ((bind.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) != 0) return bind.token_uuid_ptr == 0 ? -EFAULT : -EINVAL;
  const auto file = process.files.find_any(bind.iommufd);
  if (!file) return -EBADF;
  const auto iommufd = file_as<Iommufd>(file);
  if (!iommufd) return -EBADFD;
  if (device_.opens > 0) return -EINVAL;  // vfio_df_open
  std::uint32_t id = 0;
  if (const int result = bind_to(iommufd, id); result < 0) return result;
  // If the id cannot be written, the device is closed again.
  if (process.check_argument(address, std::min<std::size_t>(bind.argsz, sizeof bind), true) < 0) {
    unbind();
    return -EFAULT;
  }
  ++group.open_cdevs;
  device_.cdev_opened = true;
  std::memcpy(static_cast<std::byte*>(argument) + offsetof(vfio_device_bind_iommufd, out_devid), &id, sizeof id);
  enable();
  return 0;
}

}  // namespace postern::sim
