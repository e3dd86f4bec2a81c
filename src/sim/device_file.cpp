// SPDX-License-Identifier: Apache-2.0
// DeviceFile: what vfio-pci answers: regions, interrupts, reset, and the cdev's part (Linux 7.3).
#include "sim/device_file.hpp"

#include <linux/pci_regs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>

#include "sim/group_file.hpp"
#include "sim/hot_reset.hpp"

namespace postern::sim {
namespace {

constexpr unsigned region_shift = 40;  // VFIO_PCI_OFFSET_SHIFT
constexpr std::uint64_t region_mask = (std::uint64_t{1} << region_shift) - 1;

}  // namespace

DeviceFile::DeviceFile(Machine& machine, Function& function, FindFile find, std::shared_ptr<File> group)
    : machine_(machine), function_(function), group_(std::move(group)), find_(std::move(find)) {
  ++machine_.groups[function.group()].open_devices;
  enable();
}

DeviceFile::DeviceFile(Machine& machine, Function& function, FindFile find)
    : machine_(machine), function_(function), find_(std::move(find)) {}

// vfio_pci_core_enable resets the function, and turns its memory on.
void DeviceFile::enable() {
  usable_ = true;
  function_.open = true;
  constexpr std::array<std::byte, 2> command{std::byte{PCI_COMMAND_MEMORY}};
  function_.write_config(PCI_COMMAND, command);
  function_.reset();
  machine_.changed.notify_all();
}

// vfio_pci_core_disable: interrupts go off, and the function is reset, bus mastering included.
void DeviceFile::release() {
  if (!usable_) return;
  usable_ = false;
  function_.open = false;
  function_.disable_interrupts();
  const std::array<std::byte, 2> command{};
  function_.write_config(PCI_COMMAND, command);
  function_.reset();
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
  if (request == VFIO_DEVICE_BIND_IOMMUFD) return bind(as<vfio_device_bind_iommufd>(argument));
  if (!usable_) return -EINVAL;
  if (iommufd_ && request == VFIO_DEVICE_ATTACH_IOMMUFD_PT) {
    auto& attach = as<vfio_device_attach_iommufd_pt>(argument);
    constexpr auto least = offsetof(vfio_device_attach_iommufd_pt, pt_id) + sizeof attach.pt_id;
    if (attach.argsz < least || (attach.flags & ~VFIO_DEVICE_ATTACH_PASID) != 0) return -EINVAL;
    if ((attach.flags & VFIO_DEVICE_ATTACH_PASID) != 0) return -EOPNOTSUPP;
    std::uint32_t page_table = attach.pt_id;
    const int result = iommufd_->attach(function_, page_table);
    if (result == 0) attach.pt_id = page_table;
    return result;
  }
  if (iommufd_ && request == VFIO_DEVICE_DETACH_IOMMUFD_PT) {
    const auto& detach = as<vfio_device_detach_iommufd_pt>(argument);
    constexpr auto least = offsetof(vfio_device_detach_iommufd_pt, flags) + sizeof detach.flags;
    if (detach.argsz < least || (detach.flags & ~VFIO_DEVICE_DETACH_PASID) != 0) return -EINVAL;
    if ((detach.flags & VFIO_DEVICE_DETACH_PASID) != 0) return -EOPNOTSUPP;
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
      return set_irqs(as<vfio_irq_set>(argument));
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
      return -ENOTTY;
    default:
      return -ENOTTY;
  }
}

GroupOfFd DeviceFile::find_group(int fd) const {
  const auto file = find_(fd);
  if (!file) return {.result = -EBADF};
  const auto group = std::dynamic_pointer_cast<GroupFile>(file);
  return group ? GroupOfFd{.group = &group->group()} : GroupOfFd{.result = -EINVAL};
}

// vfio_df_ioctl_bind_iommufd
int DeviceFile::bind(vfio_device_bind_iommufd& bind) {
  if (bind.argsz < offsetof(vfio_device_bind_iommufd, out_devid) + sizeof bind.out_devid) return -EINVAL;
  if (bind.iommufd < 0 || (bind.flags & ~VFIO_DEVICE_BIND_FLAG_TOKEN) != 0 || group_) return -EINVAL;
  Group& group = machine_.groups[function_.group()];
  if (group.open) return -EBUSY;  // vfio_device_block_group
  if (usable_ || function_.open) return -EINVAL;
  const auto file = find_(bind.iommufd);
  if (!file) return -EBADF;
  const auto iommufd = std::dynamic_pointer_cast<Iommufd>(file);
  if (!iommufd) return -EBADFD;
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
  info.flags = VFIO_DEVICE_FLAGS_PCI | (function_.info().has_flr ? VFIO_DEVICE_FLAGS_RESET : 0);
  info.num_regions = VFIO_PCI_NUM_REGIONS;
  info.num_irqs = VFIO_PCI_NUM_IRQS;
  return 0;
}

std::uint64_t DeviceFile::region_size(std::uint64_t index) const {
  if (index == VFIO_PCI_CONFIG_REGION_INDEX) return 4096;
  return index <= VFIO_PCI_BAR5_REGION_INDEX ? function_.info().bar_sizes[index] : 0;
}

int DeviceFile::get_region_info(vfio_region_info& info) const {
  if (info.argsz < offsetof(vfio_region_info, offset) + sizeof info.offset) return -EINVAL;
  if (info.index >= VFIO_PCI_NUM_REGIONS || info.index == VFIO_PCI_VGA_REGION_INDEX) return -EINVAL;
  info.flags = 0;
  info.cap_offset = 0;
  info.offset = std::uint64_t{info.index} << region_shift;
  info.size = region_size(info.index);
  if (info.size == 0) return 0;
  info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  const bool mappable = info.index != VFIO_PCI_CONFIG_REGION_INDEX && info.size % 4096 == 0;
  if (!mappable) return 0;
  info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
  if (function_.info().msix_vectors == 0) return 0;
  // The vectors' table is in this BAR, and may be mapped with it.
  info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
  const vfio_info_cap_header capability{.id = VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, .version = 1, .next = 0};
  if (info.argsz >= sizeof info + sizeof capability) {
    info.cap_offset = sizeof info;
    std::memcpy(&info + 1, &capability, sizeof capability);
  } else {
    info.argsz = sizeof info + sizeof capability;
  }
  return 0;
}

std::uint32_t DeviceFile::vectors(std::uint32_t index) const {
  if (index == VFIO_PCI_MSIX_IRQ_INDEX) return function_.info().msix_vectors;
  return index == VFIO_PCI_ERR_IRQ_INDEX || index == VFIO_PCI_REQ_IRQ_INDEX ? 1 : 0;
}

int DeviceFile::get_irq_info(vfio_irq_info& info) const {
  if (info.argsz < sizeof info || info.index >= VFIO_PCI_NUM_IRQS) return -EINVAL;
  info.flags = VFIO_IRQ_INFO_EVENTFD;
  if (info.index == VFIO_PCI_INTX_IRQ_INDEX) {
    info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
  } else if (info.index != VFIO_PCI_MSIX_IRQ_INDEX) {
    info.flags |= VFIO_IRQ_INFO_NORESIZE;
  }
  info.count = vectors(info.index);
  return 0;
}

// vfio_set_irqs_validate_and_prepare, vfio_pci_set_irqs_ioctl
int DeviceFile::set_irqs(const vfio_irq_set& set) {
  constexpr std::uint32_t data_bits = VFIO_IRQ_SET_DATA_TYPE_MASK;
  if (set.argsz < sizeof set || set.index >= VFIO_PCI_NUM_IRQS || set.count >= 0xffffffff - set.start) return -EINVAL;
  if ((set.flags & ~(data_bits | VFIO_IRQ_SET_ACTION_TYPE_MASK)) != 0) return -EINVAL;
  const std::uint32_t most = vectors(set.index);
  if (set.start >= most || set.start + set.count > most) return -EINVAL;
  const std::uint32_t data = set.flags & data_bits;
  if (data != VFIO_IRQ_SET_DATA_NONE && data != VFIO_IRQ_SET_DATA_BOOL && data != VFIO_IRQ_SET_DATA_EVENTFD) {
    return -EINVAL;
  }
  const std::size_t each = data == VFIO_IRQ_SET_DATA_EVENTFD ? 4 : data == VFIO_IRQ_SET_DATA_BOOL ? 1 : 0;
  if (set.argsz - sizeof set < set.count * each) return -EINVAL;
  if ((set.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER) return -ENOTTY;
  return set_vectors(set);
}

// vfio_pci_set_msi_trigger; the notifiers are vectors of a kind with one.
int DeviceFile::set_vectors(const vfio_irq_set& set) {
  std::vector<int>& eventfds = function_.interrupts(set.index);
  const bool is_on = !eventfds.empty();
  const bool is_notifier = set.index != VFIO_PCI_MSIX_IRQ_INDEX;
  const std::uint32_t data = set.flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
  if (set.count == 0 && data == VFIO_IRQ_SET_DATA_NONE && (is_on || is_notifier)) {
    for (const int eventfd : eventfds) {
      if (eventfd >= 0) ::close(eventfd);
    }
    eventfds.clear();
    return 0;
  }
  if (data != VFIO_IRQ_SET_DATA_EVENTFD) {
    if (!is_on) return -EINVAL;
    constexpr std::uint64_t one = 1;
    for (std::uint32_t i = set.start; i < set.start + set.count && i < eventfds.size(); ++i) {
      const bool wanted = data == VFIO_IRQ_SET_DATA_NONE || set.data[i - set.start] != 0;
      if (wanted && eventfds[i] >= 0) (void)!::write(eventfds[i], &one, sizeof one);
    }
    return 0;
  }
  std::vector<int> wanted(set.count, -1);
  for (std::uint32_t i = 0; i < set.count; ++i) {
    std::int32_t eventfd = -1;
    std::memcpy(&eventfd, set.data + i * sizeof eventfd, sizeof eventfd);
    wanted[i] = eventfd < 0 ? -1 : ::dup(eventfd);
    if (eventfd < 0 || wanted[i] >= 0) continue;
    for (const int taken : wanted) {
      if (taken >= 0) ::close(taken);
    }
    return -EBADF;
  }
  if (eventfds.size() < set.start + set.count) eventfds.resize(set.start + set.count, -1);
  for (std::uint32_t i = 0; i < set.count; ++i) {
    int& eventfd = eventfds[set.start + i];
    if (eventfd >= 0) ::close(eventfd);
    eventfd = wanted[i];
  }
  return 0;
}

ssize_t DeviceFile::pread(void* buffer, std::size_t length, std::uint64_t offset) {
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (!usable_ || index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  const std::span bytes(static_cast<std::byte*>(buffer), length);
  if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
    if (at >= 4096 || length > 4096 - at) return -EFAULT;
    function_.read_config(at, bytes);
    return static_cast<ssize_t>(length);
  }
  const std::uint64_t size = region_size(index);
  if (at >= size) return -EINVAL;
  const std::size_t part = std::min<std::uint64_t>(length, size - at);
  std::memcpy(buffer, function_.bar().data() + at, part);
  return static_cast<ssize_t>(part);
}

ssize_t DeviceFile::pwrite(const void* buffer, std::size_t length, std::uint64_t offset) {
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (!usable_ || index >= VFIO_PCI_NUM_REGIONS) return -EINVAL;
  if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
    if (at >= 4096 || length > 4096 - at) return -EFAULT;
    function_.write_config(at, {static_cast<const std::byte*>(buffer), length});
    return static_cast<ssize_t>(length);
  }
  const std::uint64_t size = region_size(index);
  if (at >= size) return -EINVAL;
  const std::size_t part = std::min<std::uint64_t>(length, size - at);
  std::memcpy(function_.bar().data() + at, buffer, part);
  return static_cast<ssize_t>(part);
}

std::intptr_t DeviceFile::mmap(void* address, std::size_t length, int protection, int flags, std::uint64_t offset) {
  const std::uint64_t index = offset >> region_shift;
  const std::uint64_t at = offset & region_mask;
  if (!usable_ || (flags & MAP_SHARED) == 0 || index > VFIO_PCI_BAR5_REGION_INDEX) return -EINVAL;
  const std::uint64_t size = region_size(index);
  if (size == 0 || size % 4096 != 0 || at + length > size) return -EINVAL;
  void* const mapped = ::mmap(address, length, protection, flags, function_.bar_fd(), static_cast<off_t>(at));
  return mapped == MAP_FAILED ? -errno : reinterpret_cast<std::intptr_t>(mapped);
}

}  // namespace postern::sim
