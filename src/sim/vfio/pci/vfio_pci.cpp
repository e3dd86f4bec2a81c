// SPDX-License-Identifier: Apache-2.0
// VfioPci: information about a function, interrupts, reset and low power (vfio_pci_core.c, Linux 7.3).
#include "sim/vfio/pci/vfio_pci.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "sim/pci/eventfds.hpp"
#include "sim/process/argument.hpp"
#include "sim/process/dma_buf.hpp"
#include "sim/vfio/pci/hot_reset.hpp"

namespace postern::sim {

int VfioPci::ioctl(unsigned long request, void* argument) {
  Process& process = machine_.process;
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
    case VFIO_DEVICE_IOEVENTFD:
      return with_argument<vfio_device_ioeventfd>(process, argument, offsetof(vfio_device_ioeventfd, reserved),
                                                  [this](auto& wanted) { return set_ioeventfd(wanted); });
    case VFIO_DEVICE_RESET:
      return reset();
    case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
      return with_argument<vfio_pci_hot_reset_info>(
          process, argument, sizeof(vfio_pci_hot_reset_info),
          [this](auto& info) { return get_hot_reset_info(machine_, function_, info); });
    case VFIO_DEVICE_PCI_HOT_RESET:
      return with_argument<vfio_pci_hot_reset>(
          process, argument, sizeof(vfio_pci_hot_reset),
          [this](auto& wanted) { return hot_reset(machine_, function_, wanted); }, UserArgument::Tail::wanted);
    default:
      return -ENOTTY;
  }
}

// vfio_pci_core_match: a name, followed by options. The only option is a token, which only SR-IOV has.
int VfioPci::match(std::string_view text) const {
  const std::string& name = function_.name();
  if (text.substr(0, name.size()) != name) return 0;
  text.remove_prefix(name.size());
  if (!text.empty() && text.front() != ' ') return 0;
  return text.find_first_not_of(' ') == std::string_view::npos ? 1 : -EINVAL;
}

int VfioPci::get_info(vfio_device_info& info) const {
  if (info.argsz < offsetof(vfio_device_info, num_irqs) + sizeof info.num_irqs) return -EINVAL;
  // vfio_pci_ioctl_get_info: the struct is truncated if it does not fit.
  const std::uint32_t flags = VFIO_DEVICE_FLAGS_PCI | (function_.info().has_flr ? VFIO_DEVICE_FLAGS_RESET : 0U);
  const vfio_device_info answer{
      .argsz = info.argsz, .flags = flags, .num_regions = VFIO_PCI_NUM_REGIONS, .num_irqs = VFIO_PCI_NUM_IRQS};
  std::memcpy(static_cast<void*>(&info), &answer, std::min<std::size_t>(info.argsz, sizeof info));
  return 0;
}

int VfioPci::get_irq_info(vfio_irq_info& info) const {
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

int VfioPci::reset() {
  if (!function_.info().has_flr) return -EINVAL;
  function_.reset();
  return 0;
}

// vfio_pci_core_ioctl_feature
int VfioPci::device_feature(const vfio_device_feature& feature, void* data) {
  switch (feature.flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY:
    case VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP:
      return enter_low_power(feature, data);
    case VFIO_DEVICE_FEATURE_LOW_POWER_EXIT:
      if (const int result = check_feature(feature, VFIO_DEVICE_FEATURE_SET, 0); result != 1) return result;
      leave_low_power();
      return 0;
    case VFIO_DEVICE_FEATURE_DMA_BUF:
      return machine_.tce ? -ENOTTY : export_dma_buf(feature, data);  // newer than the POWER hosts' kernel
    default:
      return -ENOTTY;
  }
}

VfioPci::~VfioPci() { drop(wake_event_); }

void VfioPci::close_device() {
  drop(wake_event_);
  function_.disable();
}

// vfio_pci_core_runtime_resume. The simulated host suspends a device in low power at once.
void VfioPci::resume() {
  if (wake_event_ < 0) return;
  signal(wake_event_);
  leave_low_power();
}

// vfio_pci_runtime_pm_exit
void VfioPci::leave_low_power() {
  drop(wake_event_);
  function_.low_power = false;
  if (function_.is_memory_on()) function_.move_dma_bufs(false);
}

// vfio_pci_core_pm_entry, vfio_pci_core_pm_entry_with_wakeup, vfio_pci_runtime_pm_entry.
int VfioPci::enter_low_power(const vfio_device_feature& feature, const void* data) {
  vfio_device_low_power_entry_with_wakeup entry{};
  const bool wakes = (feature.flags & VFIO_DEVICE_FEATURE_MASK) == VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP;
  const int checked = check_feature(feature, VFIO_DEVICE_FEATURE_SET, wakes ? sizeof entry : 0);
  if (checked != 1) return checked;
  if (wakes) {
    if (machine_.process.copy_from_user(&entry, data, sizeof entry) < 0) return -EFAULT;
    if (entry.wakeup_eventfd < 0) return -EINVAL;
    wake_event_ = take_eventfd(entry.wakeup_eventfd);  // there is none: resume() took it
    if (wake_event_ < 0) return std::exchange(wake_event_, -1);
  }
  function_.move_dma_bufs(true);
  if (function_.low_power) {
    drop(wake_event_);
    return -EINVAL;
  }
  function_.low_power = true;
  return 0;
}

// vfio_pci_core_feature_dma_buf, validate_dmabuf_input, vfio_pci_core_fill_phys_vec
int VfioPci::export_dma_buf(const vfio_device_feature& feature, const void* data) {
  vfio_device_feature_dma_buf wanted;  // not initialized: clang has no {} for a flexible array
  const int checked = check_feature(feature, VFIO_DEVICE_FEATURE_GET, sizeof wanted);
  if (checked != 1) return checked;
  Process& process = machine_.process;
  if (process.copy_from_user(&wanted, data, sizeof wanted) < 0) return -EFAULT;
  if (wanted.nr_ranges == 0 || wanted.flags != 0) return -EINVAL;
  if (wanted.region_index >= VFIO_PCI_ROM_REGION_INDEX) return -ENODEV;
  const Bar& bar = function_.info().bars[wanted.region_index];
  if (bar.size == 0) return -ENODEV;
  std::uint64_t length = 0;
  std::uint64_t first = 0;
  bool is_beyond = false;
  for (std::uint32_t i = 0; i < wanted.nr_ranges; ++i) {
    vfio_region_dma_range range{};
    const auto* const from = static_cast<const std::byte*>(data) + sizeof wanted + i * sizeof range;
    if (process.copy_from_user(&range, from, sizeof range) < 0) return -EFAULT;
    if (range.length == 0 || ((range.offset | range.length) & (Process::page_size - 1)) != 0) return -EINVAL;
    if (length + range.length < length) return -EINVAL;
    length += range.length;
    if (i == 0) first = range.offset;
    if (range.offset + range.length < range.length) return -EOVERFLOW;
    is_beyond = is_beyond || range.offset > bar.size || range.length > bar.size - range.offset;
  }
  // Only memory has a provider (pcim_p2pdma_provider).
  if (is_beyond || bar.kind == Bar::Kind::io) return -EINVAL;
  const auto address = reinterpret_cast<std::uintptr_t>(function_.bar(wanted.region_index).data()) + first;
  const auto dma_buf = std::make_shared<DmaBuf>(address, length, wanted.nr_ranges, !function_.is_memory_on());
  function_.add_dma_buf(dma_buf);
  return process.files.give(dma_buf);
}

}  // namespace postern::sim
