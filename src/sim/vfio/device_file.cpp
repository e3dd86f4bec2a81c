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

#include "sim/process/argument.hpp"
#include "sim/vfio/group_file.hpp"
#include "sim/vfio/pci/hot_reset.hpp"

namespace postern::sim {

// vfio_df_group_open. What no IOMMU translates for is bound to nothing, and may come where nobody expects that.
int DeviceFile::open_by_group(std::shared_ptr<File> group, const std::shared_ptr<Iommufd>& iommufd) {
  is_cdev_ = false;
  if (iommufd && function_.opens == 0) {
    if (function_.has_iommu()) {
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
  const int result = iommufd->vfio_compat_attach(function_);
  if (result < 0) unbind();
  return result;
}

// iommufd_device_bind claims the DMA of the group.
int DeviceFile::bind_to(const std::shared_ptr<Iommufd>& iommufd, std::uint32_t& id) {
  Group& group = machine_.groups[function_.group()];
  if (machine_.kernel_owns(group.id) || (group.owner != nullptr && group.owner != iommufd.get())) return -EPERM;
  if (const int result = iommufd->bind(function_, id); result < 0) return result;
  group.owner = iommufd.get();
  function_.iommufd = iommufd;
  return 0;
}

// vfio_df_iommufd_unbind
void DeviceFile::unbind() {
  const auto iommufd = std::move(function_.iommufd);
  function_.iommufd.reset();
  iommufd->unbind(function_);
  if (!iommufd->has_group(function_.group())) machine_.groups[function_.group()].owner = nullptr;
}

// vfio_df_open: a function that its group has opened may be opened once more.
void DeviceFile::enable() {
  usable_ = true;
  if (function_.opens++ == 0) function_.enable(machine_.process);
  machine_.changed.notify_all();
}

void DeviceFile::release() {
  if (!usable_) return;
  usable_ = false;
  if (--function_.opens == 0) {
    function_.disable();
    if (function_.iommufd) unbind();
  }
  if (is_cdev_) --machine_.groups[function_.group()].open_cdevs;
  group_.reset();
  machine_.changed.notify_all();
}

int DeviceFile::ioctl(unsigned long request, void* argument) {
  Process& process = machine_.process;
  // A kernel with sPAPR has no cdevs (CONFIG_VFIO_DEVICE_CDEV depends on !SPAPR_TCE_IOMMU).
  if (request == VFIO_DEVICE_BIND_IOMMUFD && !machine_.tce) return bind(argument);
  if (!usable_) return -EINVAL;
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
  switch (request) {
    case VFIO_DEVICE_GET_INFO:
      return with_argument<vfio_device_info>(process, argument, offsetof(vfio_device_info, cap_offset),
                                             [this](auto& info) { return get_info(info); });
    case VFIO_DEVICE_GET_REGION_INFO:
      return with_argument<vfio_region_info>(process, argument, sizeof(vfio_region_info),
                                             [this](auto& info) { return get_region_info(info); });
    case VFIO_DEVICE_GET_IRQ_INFO:
      return with_argument<vfio_irq_info>(process, argument, sizeof(vfio_irq_info),
                                          [this](auto& info) { return get_irq_info(info); });
    case VFIO_DEVICE_SET_IRQS:
      return with_argument<vfio_irq_set>(
          process, argument, sizeof(vfio_irq_set), [this](auto& set) { return function_.interrupts().set(set); },
          UserArgument::Tail::wanted);
    case VFIO_DEVICE_RESET:
      if (!function_.info().has_flr) return -EINVAL;
      function_.reset();
      return 0;
    case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
      return with_argument<vfio_pci_hot_reset_info>(
          process, argument, sizeof(vfio_pci_hot_reset_info),
          [this](auto& info) { return get_hot_reset_info(machine_, function_, iommufd_of_cdev(), info); });
    case VFIO_DEVICE_PCI_HOT_RESET:
      return with_argument<vfio_pci_hot_reset>(
          process, argument, sizeof(vfio_pci_hot_reset),
          [this](auto& wanted) {
            return hot_reset(
                machine_, function_, iommufd_of_cdev(), [this](int fd) { return find_group(fd); }, wanted);
          },
          UserArgument::Tail::wanted);
    case VFIO_DEVICE_FEATURE:
      return feature(argument);
    default:
      return -ENOTTY;
  }
}

// vfio_df_ioctl_attach_pt
int DeviceFile::attach(vfio_device_attach_iommufd_pt& attach) {
  constexpr std::uint32_t pasid = VFIO_DEVICE_ATTACH_PASID;
  constexpr auto least = offsetof(vfio_device_attach_iommufd_pt, pasid);
  if (attach.argsz < least || (attach.flags & ~pasid) != 0) return -EINVAL;
  if ((attach.flags & pasid) != 0) {
    return attach.argsz < sizeof attach ? -EINVAL : function_.iommufd->attach_pasid(attach.pasid, attach.pt_id);
  }
  std::uint32_t page_table = attach.pt_id;
  const int result = function_.iommufd->attach(function_, page_table);
  if (result == 0) attach.pt_id = page_table;
  return result;
}

// vfio_df_ioctl_detach_pt. No PASID is ever attached.
int DeviceFile::detach(const vfio_device_detach_iommufd_pt& detach) {
  constexpr std::uint32_t pasid = VFIO_DEVICE_DETACH_PASID;
  constexpr auto least = offsetof(vfio_device_detach_iommufd_pt, pasid);
  if (detach.argsz < least || (detach.flags & ~pasid) != 0) return -EINVAL;
  if ((detach.flags & pasid) != 0) return detach.argsz < sizeof detach ? -EINVAL : 0;
  function_.iommufd->detach(function_);
  return 0;
}

GroupOfFd DeviceFile::find_group(int fd) const {
  const auto file = machine_.process.files.find_any(fd);
  if (!file) return {.result = -EBADF};
  const auto group = file_as<GroupFile>(file);
  return group ? GroupOfFd{.group = group->group()} : GroupOfFd{.result = -EINVAL};
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
  Group& group = machine_.groups[function_.group()];
  if (group.file != nullptr) return -EBUSY;  // vfio_device_block_group
  if (usable_) return -EINVAL;
  // vfio_df_check_token: what has no virtual functions has no token.
  if ((bind.flags & VFIO_DEVICE_BIND_FLAG_TOKEN) != 0) return bind.token_uuid_ptr == 0 ? -EFAULT : -EINVAL;
  const auto file = process.files.find_any(bind.iommufd);
  if (!file) return -EBADF;
  const auto iommufd = file_as<Iommufd>(file);
  if (!iommufd) return -EBADFD;
  if (function_.opens > 0) return -EINVAL;  // vfio_df_open
  std::uint32_t id = 0;
  if (const int result = bind_to(iommufd, id); result < 0) return result;
  // One that has nowhere to tell its id is closed again.
  if (process.check_argument(address, std::min<std::size_t>(bind.argsz, sizeof bind), true) < 0) {
    unbind();
    return -EFAULT;
  }
  ++group.open_cdevs;
  std::memcpy(static_cast<std::byte*>(argument) + offsetof(vfio_device_bind_iommufd, out_devid), &id, sizeof id);
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
  } else if (info.index != VFIO_PCI_MSIX_IRQ_INDEX || !function_.interrupts().can_add_vectors) {
    info.flags |= VFIO_IRQ_INFO_NORESIZE;
  }
  info.count = function_.interrupts().count(info.index);
  return 0;
}

}  // namespace postern::sim
