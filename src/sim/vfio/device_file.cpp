// SPDX-License-Identifier: Apache-2.0
// DeviceFile: what vfio-pci answers: what a device is, reset, and the cdev's part (Linux 7.3).
#include "sim/vfio/device_file.hpp"

#include <linux/pci_regs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "sim/vfio/group_file.hpp"
#include "sim/vfio/hot_reset.hpp"

namespace postern::sim {
DeviceFile::DeviceFile(Machine& machine, Function& function, FileTable files, std::shared_ptr<File> group)
    : machine_(machine), function_(function), group_(std::move(group)), files_(std::move(files)) {
  ++machine_.groups[function.group()].open_devices;
  enable();
}

DeviceFile::DeviceFile(Machine& machine, Function& function, FileTable files)
    : machine_(machine), function_(function), files_(std::move(files)) {}

// vfio_df_open: a function that its group has opened may be opened once more.
void DeviceFile::enable() {
  usable_ = true;
  if (function_.opens++ == 0) function_.enable();
  machine_.changed.notify_all();
}

void DeviceFile::release() {
  if (!usable_) return;
  usable_ = false;
  if (--function_.opens == 0) function_.disable();
  Group& group = machine_.groups[function_.group()];
  if (group_) {
    --group.open_devices;
  } else {
    --group.open_cdevs;
    iommufd_->unbind(function_);
    function_.iommufd = nullptr;
    iommufd_.reset();
    if (group.open_cdevs == 0) group.owner = nullptr;
  }
  group_.reset();
  machine_.changed.notify_all();
}

int DeviceFile::ioctl(unsigned long request, void* argument) {
  constexpr std::uint32_t pasid = VFIO_DEVICE_ATTACH_PASID;
  static_assert(pasid == VFIO_DEVICE_DETACH_PASID);
  if (request == VFIO_DEVICE_BIND_IOMMUFD) return bind(as<vfio_device_bind_iommufd>(argument));
  if (!usable_) return -EINVAL;
  if (iommufd_ && request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
    auto& attach = as<vfio_device_attach_iommufd_pt>(argument);
    constexpr auto least = offsetof(vfio_device_attach_iommufd_pt, pt_id) + sizeof attach.pt_id;
    if (attach.argsz < least || (attach.flags & ~pasid) != 0) return -EINVAL;
    if ((attach.flags & pasid) != 0) return attach.argsz < sizeof attach ? -EINVAL : -EOPNOTSUPP;
    std::uint32_t page_table = attach.pt_id;
    const int result = iommufd_->attach(function_, page_table);
    if (result == 0) attach.pt_id = page_table;
    return result;
  }
  if (iommufd_ && request == VFIO_DEVICE_DETACH_IOMMUFD_PT) {
    const auto& detach = as<vfio_device_detach_iommufd_pt>(argument);
    constexpr auto least = offsetof(vfio_device_detach_iommufd_pt, flags) + sizeof detach.flags;
    if (detach.argsz < least || (detach.flags & ~pasid) != 0) return -EINVAL;
    if ((detach.flags & pasid) != 0) return detach.argsz < sizeof detach ? -EINVAL : -EOPNOTSUPP;
    iommufd_->detach(function_);
    return 0;
  }
  switch (request) {
    case VFIO_DEVICE_GET_INFO:
      return get_info(as<vfio_device_info>(argument));
    case VFIO_DEVICE_GET_REGION_INFO:
      return get_region_info(as<vfio_region_info>(argument));
    case VFIO_DEVICE_GET_IRQ_INFO:
      return get_irq_info(as<vfio_irq_info>(argument));
    case VFIO_DEVICE_SET_IRQS:
      return function_.interrupts().set(as<vfio_irq_set>(argument));
    case VFIO_DEVICE_RESET:
      if (!function_.info().has_flr) return -EINVAL;
      function_.reset();
      return 0;
    case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
      return get_hot_reset_info(machine_, function_, iommufd_.get(), as<vfio_pci_hot_reset_info>(argument));
    case VFIO_DEVICE_PCI_HOT_RESET:
      return hot_reset(
          machine_, function_, iommufd_.get(), [this](int fd) { return find_group(fd); },
          as<vfio_pci_hot_reset>(argument));
    case VFIO_DEVICE_FEATURE:
      return feature(as<vfio_device_feature>(argument));
    default:
      return -ENOTTY;
  }
}

GroupOfFd DeviceFile::find_group(int fd) const {
  const auto file = files_.find(fd);
  if (!file) return {.result = -EBADF};
  const auto group = std::dynamic_pointer_cast<GroupFile>(file);
  return group ? GroupOfFd{.group = &group->group()} : GroupOfFd{.result = -EINVAL};
}

// vfio_df_ioctl_bind_iommufd
int DeviceFile::bind(vfio_device_bind_iommufd& bind) {
  if (bind.argsz < offsetof(vfio_device_bind_iommufd, out_devid) + sizeof bind.out_devid) return -EINVAL;
  // copy_struct_from_user
  const auto* const bytes = reinterpret_cast<const std::byte*>(&bind);
  for (std::size_t i = sizeof bind; i < bind.argsz; ++i) {
    if (bytes[i] != std::byte{0}) return -E2BIG;
  }
  constexpr std::uint32_t known = VFIO_DEVICE_BIND_FLAG_TOKEN;
  if (bind.iommufd < 0 || (bind.flags & ~known) != 0 || group_) return -EINVAL;
  Group& group = machine_.groups[function_.group()];
  if (group.open) return -EBUSY;  // vfio_device_block_group
  if (usable_) return -EINVAL;
  // vfio_df_check_token: what has no virtual functions has no token.
  if ((bind.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) != 0) return bind.token_uuid_ptr == 0 ? -EFAULT : -EINVAL;
  const auto file = files_.find(bind.iommufd);
  if (!file) return -EBADF;
  const auto iommufd = std::dynamic_pointer_cast<Iommufd>(file);
  if (!iommufd) return -EBADFD;
  if (function_.opens > 0) return -EINVAL;  // vfio_df_open
  // iommufd_device_bind claims the DMA of the group.
  if (machine_.kernel_owns(function_.group()) || (group.owner != nullptr && group.owner != iommufd.get())) {
    return -EPERM;
  }
  std::uint32_t id = 0;
  if (const int result = iommufd->bind(function_, id); result < 0) return result;
  group.owner = iommufd.get();
  ++group.open_cdevs;
  iommufd_ = iommufd;
  function_.iommufd = iommufd.get();
  bind.out_devid = id;
  enable();
  return 0;
}

int DeviceFile::get_info(vfio_device_info& info) const {
  if (info.argsz < offsetof(vfio_device_info, num_irqs) + sizeof info.num_irqs) return -EINVAL;
  // vfio_pci_ioctl_get_info: the struct goes as far as there is room.
  const std::uint32_t flags = VFIO_DEVICE_FLAGS_PCI | (function_.info().has_flr ? VFIO_DEVICE_FLAGS_RESET : 0U);
  const vfio_device_info answer{
      .argsz = info.argsz, .flags = flags, .num_regions = VFIO_PCI_NUM_REGIONS, .num_irqs = VFIO_PCI_NUM_IRQS};
  std::memcpy(static_cast<void*>(&info), &answer, std::min<std::size_t>(info.argsz, sizeof info));
  return 0;
}

int DeviceFile::get_irq_info(vfio_irq_info& info) const {
  if (info.argsz < sizeof info || info.index >= VFIO_PCI_NUM_IRQS) return -EINVAL;
  info.flags = VFIO_IRQ_INFO_EVENTFD;
  if (info.index == VFIO_PCI_INTX_IRQ_INDEX) {
    info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
  } else if (info.index != VFIO_PCI_MSIX_IRQ_INDEX) {
    info.flags |= VFIO_IRQ_INFO_NORESIZE;
  }
  info.count = function_.interrupts().count(info.index);
  return 0;
}

}  // namespace postern::sim
