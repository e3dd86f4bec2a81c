// SPDX-License-Identifier: Apache-2.0
// SpaprContainer: sets up and releases the IOMMU in the order that the kernel requires, and maps memory.
#include "iommu/spapr/container.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <postern/locked_memory.hpp>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/remedy.hpp"
#include "base/words.hpp"
#include "host/requirements.hpp"
#include "iommu/address_space.hpp"
#include "kernel/spapr.hpp"

namespace postern::spapr {

SpaprContainer::SpaprContainer(Opened opened, std::uint64_t memory)
    : GroupContainer(
          std::move(opened),
          {.name = "spapr", .unmap = vfio::iommu_unmap_dma.symbol, .when_empty = WhenEmpty::clears_mappings}),
      memory_to_come_(memory),
      windows_(read_platform(kernel()), static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))),
      registered_(fd()) {
  has_eeh_ = has_extension(VFIO_EEH);
}

void* SpaprContainer::find_capability(std::string_view name) noexcept {
  if (name == DmaWindows::capability) return is_v2() ? &dma_windows_ : nullptr;
  if (name == Preregistration::capability) return is_v2() ? &preregistration_ : nullptr;
  if (name == Eeh::capability && has_eeh_) {
    if (!eeh_) eeh_.emplace(fd(), space());  // which the constructor does not know yet
    return &*eeh_;
  }
  return nullptr;
}

// A group that leaves clears the tables that it shares with other groups, and so their mappings
// (tce_iommu_release_ownership; Linux 6.12, 7.3). The kernel itself removes a group only when its device is unbound
// from its driver.
bool SpaprContainer::keeps_groups() const { return !space().mappings().empty(); }

// Returns 0, a negated errno, or 1: the kernel cleared nothing, because the iova is not a multiple of the window's page
// (iommu_tce_clear_param_check; Linux 6.12, 7.3). AddressSpace's checks prevent such calls.
int SpaprContainer::unmap_in_kernel(Iova iova, std::uint64_t length) {
  std::uint64_t unmapped = 0;  // the requested length, even if nothing was mapped (tce_iommu_ioctl)
  return std::min(unmap_dma(iova, length, unmapped), 1);
}

// The kernel returns 1 for an iova that is not a multiple of the window's page (iommu_tce_put_param_check; Linux 6.12,
// 7.3). No call has failed then, so this is a refusal.
CallResult SpaprContainer::map_in_kernel(Iova iova, std::uint64_t length, void* address, Access access) {
  const int result = map_dma(iova, length, address, access);
  if (result > 0) return {.result = -EINVAL};
  if (result == 0) default_pending_ = false;
  return {.result = result, .call = vfio::iommu_map_dma.symbol.data()};
}

// AddressSpace has checked that the range is within one window. The kernel would write a map that runs past a window's
// end beyond the table (tce_iommu_ioctl checks only the first page; Linux 6.12, 7.3).
CallResult SpaprContainer::map(Iova iova, std::uint64_t length, void* address, Access access) {
  const DmaWindow* const window = windows_.holding(iova);
  if (window == nullptr || ((iova.value | address_of(address) | length) & (window->page_size - 1)) != 0) [[unlikely]] {
    return {.result = -EINVAL};
  }
  if (!registered_.is_kept(address_of(address), length) && is_v2()) [[unlikely]]
    return register_and_map(iova, length, address, access);
  return map_in_kernel(iova, length, address, access);
}

CallResult SpaprContainer::register_and_map(Iova iova, std::uint64_t length, void* address, Access access) {
  const int result = registered_.acquire(address_of(address), length);
  if (result < 0)
    return {.result = result, .call = registered_.pages_found() ? nullptr : register_memory.symbol.data()};
  const CallResult mapped = map_in_kernel(iova, length, address, access);
  if (mapped.result < 0) registered_.release(address_of(address), length);
  return mapped;
}

int SpaprContainer::unmap(Iova iova, std::uint64_t length) {
  std::uint64_t unmapped = 0;
  const int result = unmap_dma(iova, length, unmapped);
  if (result != 0 || registered_.has_temporary()) [[unlikely]]
    return end_unmap(iova, length, result);
  return 0;
}

// What rarely follows the ioctl.
int SpaprContainer::end_unmap(Iova iova, std::uint64_t length, int result) {
  if (result == 0) {
    if (const auto* mapping = space().mappings().find(iova)) registered_.release(address_of(mapping->address), length);
  }
  return std::min(result, 1);
}

// Unmaps one mapping at a time, since a range may span several windows. Unmapping an unmapped range is harmless.
int SpaprContainer::unmap_several(IovaRange range) {
  int result = 0;
  const auto unmap = [&](const MappingRecord& each) {
    if (range.contains(each.range) && result == 0) result = unmap_in_kernel(each.range.first, each.range.length());
  };
  space().mappings().for_each(unmap);
  if (result != 0 || !registered_.has_temporary()) return result;
  // Only now, since a call that failed half way is repeated.
  const auto release = [&](const MappingRecord& each) {
    if (range.contains(each.range)) registered_.release(address_of(each.address), each.range.length());
  };
  space().mappings().for_each(release);
  return 0;
}

int SpaprContainer::unmap_all() {
  const int result = unmap_several({{0}, {~std::uint64_t{0}}});
  if (result == 0) log_failure(release_idle_groups());  // no mappings are left that leaving could clear
  return result;
}

Result<void> SpaprContainer::set_up(const HostDevice& device) {
  if (const int result = vfio::set_iommu(kernel(), fd().get(), extension().number); result < 0) {
    CallFailed what{.result = result, .object = fmt::format("container spapr for {}", device.name)};
    explain_set_iommu(what);
    return call_failure(vfio::set_iommu.symbol, std::move(what));
  }
  vfio_iommu_spapr_tce_info info{};
  info.argsz = sizeof info;
  if (const int result = tce_get_info(kernel(), fd().get(), info); result < 0) {
    return call_failure(tce_get_info.symbol, {.result = result, .object = "container spapr"});
  }
  default_pending_ = true;
  if (!is_v2()) {
    windows_.begin(info);
    return enable();
  }
  if (begun_) return restore();
  windows_.begin(info);
  if ((info.flags & VFIO_IOMMU_SPAPR_INFO_DDW) != 0 && windows_.limits().levels == 0) {
    // Even the default window would be refused, and the first attempt would make it unavailable for all processes.
    return refusal({.result = -ENODEV,
                    .kind = ErrorKind::unavailable,
                    .object = fmt::format("container spapr for {}", device.name),
                    .reason = "the hypervisor creates no DMA windows for this PCI host bridge",
                    .remedy = RemedyCode::turn_dma_windows_on});
  }
  if (memory_to_come_ > info.dma32_window_size) {
    const auto plan = POSTERN_TRY(windows_.plan(windows_.request_for(memory_to_come_, windows_.host_page())));
    POSTERN_TRY(create_in_kernel(plan));
  }
  begun_ = true;
  return {};
}

Remedies SpaprContainer::raise_limit(std::uint64_t bytes) const {
  const auto locked = LockedMemory::read(kernel());
  return locked ? locked->raise_limit(bytes, locked_memory_counter()) : RemedyCode::raise_locked_memory_limit;
}

// Version 1 counts the whole window as locked memory, mapped or not (tce_iommu_enable).
Result<void> SpaprContainer::enable() {
  const int result = spapr::enable(kernel(), fd().get(), 0);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = "container spapr, version 1"};
  const DmaWindow* const window = windows_.default_window();
  if (result == -ENOMEM && window != nullptr) {
    const auto locked = LockedMemory::read(kernel());
    what.kind = ErrorKind::locked_memory;
    what.reason =
        fmt::format("version 1 counts the whole window, {}, as locked memory, which is limited to {}",
                    size_text(window->range.length()), locked && locked->limit ? size_text(*locked->limit) : "less");
    what.remedy = RemedyCode::use_spapr_version_2;
    what.remedy.add(
        raise_limit(window->range.length() + windows_.table_size(window->range.length(), window->page_size)));
  }
  return call_failure(spapr::enable.symbol, std::move(what));
}

// Restores the windows and the registered memory of before the last device left. After an error everything is still to
// be restored.
Result<void> SpaprContainer::restore() {
  WindowTable wanted = windows_;
  const OnThrow undo([&] { windows_ = std::move(wanted); });
  auto restored = restore_windows();
  if (restored) {
    CallFailed what{.result = registered_.resume(), .object = "memory of container spapr"};
    if (what.result == -EFAULT && registered_.pages_found()) {
      what.reason = registered_.pages_found_text();
      restored = refusal(std::move(what));
    } else if (what.result < 0) {
      restored = call_failure(register_memory.symbol, std::move(what));
    }
  }
  if (!restored) windows_ = std::move(wanted);
  return restored;
}

Result<void> SpaprContainer::restore_windows() {
  const std::vector<DmaWindow> wanted = windows_.list();
  if (windows_.default_window() == nullptr) {
    if (const int result = remove_in_kernel(windows_.default_start()); result < 0) {
      return call_failure(tce_remove.symbol, {.result = result, .object = "default DMA window of container spapr"});
    }
  }
  for (const DmaWindow& window : wanted) {
    if (!window.created) continue;
    windows_.remove(window.range.first);
    auto plan = POSTERN_TRY(
        windows_.plan({.size = window.range.length(), .page_size = window.page_size, .levels = window.levels}));
    auto made = POSTERN_TRY(create_in_kernel(plan));
    if (made.range == window.range) continue;
    return refusal({.result = -EADDRINUSE,
                    .kind = ErrorKind::cannot_share,
                    .object = fmt::format("DMA window {}", to_string(window.range)),
                    .reason = fmt::format("for this device the kernel places it at {}", to_string(made.range)),
                    .remedy = RemedyCode::attach_to_new_container});
  }
  return {};
}

// What the kernel would do itself when the container loses its IOMMU, but in an order that it survives: mappings,
// windows, registrations, the IOMMU. The records are kept, and a later device gets everything back.
void SpaprContainer::tear_down() {
  bool all_unmapped = true;
  const auto unmap = [&](const MappingRecord& mapping) {
    const int result = unmap_in_kernel(mapping.range.first, mapping.range.length());
    if (result != 0) {
      all_unmapped = false;
    } else if (registered_.has_temporary()) {
      registered_.release(address_of(mapping.address), mapping.range.length());
    }
  };
  space().mappings().for_each(unmap);
  if (!is_v2()) {
    (void)spapr::disable(kernel(), fd().get(), 0);
    return;
  }
  for (const DmaWindow& window : windows_.list()) {
    if (window.created) (void)remove_in_kernel(window.range.first);
  }
  // Memory that may still be mapped must not be unregistered. The kernel does both when the IOMMU is released
  // (tce_iommu_release).
  all_unmapped ? registered_.suspend() : registered_.abandon();
}

Result<void> SpaprContainer::prepare(const HostDevice& device, const std::shared_ptr<const KvmVfioDevice>& kvm) {
  if (has_groups() && !has_group_of(device)) {
    POSTERN_TRY(settle_default_window(device));
  }
  return GroupContainer::prepare(device, kvm);
}

// Under a hypervisor, each host bridge has its own table, which groups of others cannot use. VFIO_GROUP_SET_CONTAINER
// fails with EPERM then, but only if a window exists; otherwise the group joins, and no window can be created any more
// (tce_iommu_attach_group, spapr_tce_set_window, Linux 6.12). So this makes the kernel create the default window now,
// not when it is first used.
Result<void> SpaprContainer::settle_default_window(const HostDevice& newcomer) {
  const DmaWindow* const window = windows_.default_window();
  if (!is_v2() || windows_.list().size() > (window != nullptr ? 1U : 0U)) return {};
  CallFailed what{.object = fmt::format("attach {} to container spapr", newcomer.name)};
  if (window == nullptr) {
    what.result = -ENODEV;
    what.kind = ErrorKind::unavailable;
    what.reason = "the container has no DMA window, without which it is unknown whether this device can share it";
    what.remedy = RemedyCode::create_window;
    return refusal(std::move(what));
  }
  if (!default_pending_) return {};
  // An unmap of an unmapped range creates it, and changes nothing else. But the kernel refuses it (EPERM) until some
  // memory was registered.
  const std::uint64_t page = windows_.host_page();
  const std::intptr_t address =
      kernel().mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (is_errno(address)) {
    what.result = static_cast<int>(address);
    return call_failure("mmap", std::move(what));
  }
  const Mmap memory(kernel(), reinterpret_cast<void*>(address), page);
  what.result = registered_.acquire(address_of(memory.data()), page);
  if (what.result < 0) return call_failure(register_memory.symbol, std::move(what));
  what.result = unmap_in_kernel(window->range.first, window->page_size);
  registered_.release(address_of(memory.data()), page);
  if (what.result < 0) return call_failure(vfio::iommu_unmap_dma.symbol, std::move(what));
  if (what.result > 0) {
    what.result = -EPROTO;
    what.reason = fmt::format("{} returned 1 for an aligned iova", vfio::iommu_unmap_dma.symbol);
    return refusal(std::move(what));
  }
  default_pending_ = false;
  return {};
}

Result<ContainerLimits> SpaprContainer::read_limits() { return window_limits(); }

ContainerLimits SpaprContainer::window_limits(std::optional<Iova> without) const {
  ContainerLimits limits;
  for (const DmaWindow& window : windows_.list()) {
    if (window.range.first == without) continue;
    limits.usable_ranges.push_back(window.range);
    limits.page_sizes |= window.page_size;
  }
  std::sort(limits.usable_ranges.begin(), limits.usable_ranges.end(),
            [](IovaRange a, IovaRange b) { return a.first < b.first; });
  return limits;
}

BackendContainer::Explanation SpaprContainer::explain_map(CallResult failed, IovaRange range,
                                                          const void* address) const {
  const int result = failed.result;
  if (failed.call == register_memory.symbol.data()) {
    if (result != -EINVAL) return {};
    return {.reason = "part of this memory is registered by another container of this process, with other bounds",
            .remedy = RemedyCode::register_in_both_containers};
  }
  const DmaWindow* const window = windows_.holding(range.first);
  if (window == nullptr) return {.reason = "the DMA window no longer exists", .remedy = RemedyCode::create_window};
  if (failed.call == nullptr && result == -EFAULT) return {.reason = registered_.pages_found_text(), .remedy = {}};
  if (result == -ENODEV) {
    return {.kind = ErrorKind::unavailable, .reason = windows_lost, .remedy = RemedyCode::boot_for_dma_windows};
  }
  if (result == -EINVAL) {
    const std::uint64_t misaligned = window->page_size - 1;
    if (((range.first.value | range.length() | address_of(address)) & misaligned) != 0) {
      return {.reason = fmt::format("the DMA window {} has pages of {}", to_string(window->range),
                                    size_text(window->page_size)),
              .remedy = remedy<RemedyCode::align_mapping>("address")};
    }
    if (failed.call == nullptr) return {.reason = "VFIO_IOMMU_MAP_DMA returned 1 and mapped nothing"};
    const auto page = backing_page_size(kernel(), address);
    if (page && *page < window->page_size) {
      return {.reason = fmt::format("the DMA window {} has pages of {}, but this memory has pages of {}",
                                    to_string(window->range), size_text(window->page_size), size_text(*page)),
              .remedy = RemedyCode::use_hugetlb_memory};
    }
  }
  if (result == -ENOMEM && default_pending_ && !window->created) {
    const auto locked = LockedMemory::read(kernel());
    const std::uint64_t table = windows_.table_size(window->range.length(), window->page_size);
    if (locked && !locked->allows(table + range.length(), locked_memory_counter())) {
      return {.kind = ErrorKind::locked_memory,
              .reason = fmt::format("the table of the default DMA window counts as {} of locked memory beside the {} "
                                    "to be mapped, which is limited to {}",
                                    size_text(table), size_text(range.length()), size_text(locked->limit.value_or(0))),
              .remedy = Remedies(RemedyCode::remove_default_window).add(raise_limit(table + range.length()))};
    }
  }
  return {};
}

Container::Properties SpaprContainer::properties() const {
  Container::Properties properties;
  properties.emplace_back("extension", extension().symbol);
  properties.emplace_back("groups", groups_text());
  std::vector<std::string> windows;
  for (const DmaWindow& window : windows_.list()) {
    windows.push_back(fmt::format("{} with pages of {} ({})", to_string(window.range), size_text(window.page_size),
                                  window.created ? std::string("created") : "default"));
  }
  properties.emplace_back("DMA windows", list_text(windows));
  if (is_v2()) {
    const DmaWindowLimits limits = windows_.limits();
    properties.emplace_back(
        "windows to create",
        limits.levels == 0
            ? "none"
            : fmt::format("pages of {}; {} at a time; tables of {} at most", page_sizes_text(limits.page_sizes),
                          limits.windows, limits.levels == 1 ? "1 level" : fmt::format("{} levels", limits.levels)));
    properties.emplace_back("registered memory", size_text(registered_.size()));
  }
  properties.emplace_back("EEH", has_eeh_ ? "yes" : "no");
  return properties;
}

}  // namespace postern::spapr
