// SPDX-License-Identifier: Apache-2.0
// SpaprContainer: setting the IOMMU up and taking it down in the order the kernel needs, and mapping in between.
#include "iommu/spapr/container.hpp"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <postern/locked_memory.hpp>

#include "base/log.hpp"
#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "host/requirements.hpp"
#include "kernel/spapr.hpp"

namespace postern::spapr {
namespace {

// An iova that is no multiple of the window's page gets 1 for an answer, which is no errno (iommu_tce_put_param_check
// and its twin for clearing; Linux 6.12, 7.3). The checks above keep such a call from the kernel.
constexpr int as_errno(int result) { return result > 0 ? -EINVAL : result; }

std::uint64_t address_of(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); }

}  // namespace

SpaprContainer::SpaprContainer(Fd fd, const KernelContainer::Extension& extension, std::uint64_t memory)
    : Container(fd.kernel(), {.backend = "spapr",
                              .map = vfio::iommu_map_dma.symbol,
                              .unmap = vfio::iommu_unmap_dma.symbol,
                              .when_empty = WhenEmpty::forgets_mappings}),
      container_(std::move(fd), {.set_up = [this](const HostDevice& device) { return set_up(device); },
                                 .tear_down = [this] { tear_down(); },
                                 // A group that leaves clears the tables that it shares with the others, and with
                                 // them what is mapped (tce_iommu_release_ownership; Linux 6.12, 7.3). Only its
                                 // device's unbinding from its driver makes the kernel take it out even so.
                                 .keeps_groups = [this] { return mapping_count() > 0; }}),
      extension_(extension),
      memory_to_come_(memory),
      windows_(read_platform(kernel()), static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))),
      registered_(container_.fd()) {
  if (container_.has_extension(VFIO_EEH)) eeh_.emplace(container_.fd());
}

int SpaprContainer::unmap_in_kernel(Iova iova, std::uint64_t length) {
  std::uint64_t unmapped = 0;  // what was asked for, whatever there was (tce_iommu_ioctl)
  return as_errno(container_.unmap_dma(iova, length, unmapped));
}

// The range is within one window: a map that runs past a window's end would be written behind its table
// (tce_iommu_ioctl checks the first page alone; Linux 6.12, 7.3), and the base has checked that.
int SpaprContainer::do_map(Iova iova, std::uint64_t length, void* address, Access access) {
  const DmaWindow* const window = windows_.holding(iova);
  if (window == nullptr || ((iova.value | address_of(address) | length) & (window->page_size - 1)) != 0) [[unlikely]] {
    failed_at_ = FailedAt::checking;
    return -EINVAL;
  }
  if (!registered_.is_kept(address_of(address), length) && is_v2()) [[unlikely]]
    return register_and_map(iova, length, address, access);
  const int result = as_errno(container_.map_dma(iova, length, address, access));
  if (result < 0) {
    failed_at_ = FailedAt::mapping;
  } else {
    default_pending_ = false;
  }
  return result;
}

int SpaprContainer::register_and_map(Iova iova, std::uint64_t length, void* address, Access access) {
  int result = registered_.acquire(address_of(address), length);
  failed_at_ = result < 0 ? FailedAt::registering : FailedAt::mapping;
  if (result < 0) return result;
  result = as_errno(container_.map_dma(iova, length, address, access));
  if (result < 0) {
    registered_.release(address_of(address), length);
  } else {
    default_pending_ = false;
  }
  return result;
}

int SpaprContainer::do_unmap(Iova iova, std::uint64_t length) {
  const int result = unmap_in_kernel(iova, length);
  if (result >= 0 && registered_.has_temporary()) [[unlikely]] {
    if (const auto mapping = find(iova)) registered_.release(address_of(mapping->address), length);
  }
  return result;
}

// One mapping at a time, since a range may cross from one window to another; unmapping what is not mapped does no harm.
int SpaprContainer::do_unmap_several(IovaRange range) {
  int result = 0;
  const auto unmap = [&](const Mapping& each) {
    if (range.contains(each.range) && result >= 0) result = unmap_in_kernel(each.range.first, each.range.length());
  };
  for_each_mapping(std::ref(unmap));  // which takes no memory
  if (result < 0 || !registered_.has_temporary()) return result;
  // Only now: a call that fails half way is made again.
  const auto release = [&](const Mapping& each) {
    if (range.contains(each.range)) registered_.release(address_of(each.address), each.range.length());
  };
  for_each_mapping(std::ref(release));
  return 0;
}

int SpaprContainer::do_unmap_all() {
  const int result = do_unmap_several({{0}, {~std::uint64_t{0}}});
  if (result >= 0) log_failure(container_.release_idle_groups());  // nothing is left that they could harm
  return result;
}

Result<void> SpaprContainer::set_up(const HostDevice& device) {
  if (const int result = vfio::set_iommu(kernel(), container_.fd().get(), extension_.number); result < 0) {
    return call_failure(vfio::set_iommu.symbol,
                        {.result = result, .object = fmt::format("container spapr for {}", device.name)});
  }
  vfio_iommu_spapr_tce_info info{};
  info.argsz = sizeof info;
  if (const int result = tce_get_info(kernel(), container_.fd().get(), info); result < 0) {
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
    // Even the default window would be refused, and the first attempt would lose it for everybody.
    return refusal({.result = -ENODEV,
                    .object = fmt::format("container spapr for {}", device.name),
                    .reason = "the hypervisor makes no DMA windows for this PCI host bridge",
                    .remedy = "turn dynamic DMA windows on (for QEMU: spapr-pci-host-bridge.ddw=on)"});
  }
  if (memory_to_come_ > info.dma32_window_size) {
    auto plan = windows_.plan(windows_.request_for(memory_to_come_, windows_.host_page()));
    auto made = plan ? create_in_kernel(*plan) : Result<DmaWindow>(failure_of(plan));
    if (!made) return failure_of(made);
  }
  begun_ = true;
  return {};
}

// v1 counts the whole window as locked memory, mapped or not (tce_iommu_enable).
Result<void> SpaprContainer::enable() {
  const int result = spapr::enable(kernel(), container_.fd().get(), 0);
  if (result >= 0) return {};
  CallFailed what{.result = result, .object = "container spapr, version 1"};
  const DmaWindow* const window = windows_.default_window();
  if (result == -ENOMEM && window != nullptr) {
    const auto locked = LockedMemory::read(kernel());
    what.reason =
        fmt::format("version 1 counts the whole window, {}, as locked memory, and that is limited to {}",
                    size_text(window->range.length()), locked && locked->limit ? size_text(*locked->limit) : "less");
    what.remedy =
        "use version 2, which counts what is registered alone; or raise RLIMIT_MEMLOCK (\"ulimit -l\") or run with "
        "CAP_IPC_LOCK";
  }
  return call_failure(spapr::enable.symbol, std::move(what));
}

// The windows and the registered memory that were there when the last device left.
// After an error all of it is still to be restored.
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
    auto plan = windows_.plan({.size = window.range.length(), .page_size = window.page_size, .levels = window.levels});
    if (!plan) return failure_of(plan);
    auto made = create_in_kernel(*plan);
    if (!made) return failure_of(made);
    if (made->range == window.range) continue;
    return refusal({.result = -EADDRINUSE,
                    .object = fmt::format("DMA window {}", to_string(window.range)),
                    .reason = fmt::format("for this device the kernel makes it at {}", to_string(made->range)),
                    .remedy = "attach the device to a container of its own"});
  }
  return {};
}

// What the kernel would do itself when the container loses its IOMMU, in an order that it is known to survive:
// mappings, windows, registrations, the IOMMU. Nothing is forgotten here: a device that comes later finds it all again.
void SpaprContainer::tear_down() {
  bool all_unmapped = true;
  const auto unmap = [&](const Mapping& mapping) {
    const int result = unmap_in_kernel(mapping.range.first, mapping.range.length());
    if (result < 0) {
      all_unmapped = false;
    } else if (registered_.has_temporary()) {
      registered_.release(address_of(mapping.address), mapping.range.length());
    }
  };
  for_each_mapping(std::ref(unmap));
  if (!is_v2()) {
    (void)spapr::disable(kernel(), container_.fd().get(), 0);
    return;
  }
  for (const DmaWindow& window : windows_.list()) {
    if (window.created) (void)remove_in_kernel(window.range.first);
  }
  // What may still be mapped must not be unregistered: the kernel does both when the IOMMU goes (tce_iommu_release).
  all_unmapped ? registered_.suspend() : registered_.abandon();
}

Result<Fd> SpaprContainer::do_attach(const HostDevice& device) {
  if (!container_.empty() && !container_.has_group_of(device)) {
    if (auto settled = settle_default_window(device); !settled) return failure_of(settled);
  }
  return container_.attach(device);
}

// Under a hypervisor each host bridge has a table of its own, and another group cannot use it: VFIO_GROUP_SET_CONTAINER
// says so with EPERM, but only where a window exists already; otherwise the group joins, and no window can be made any
// more (tce_iommu_attach_group, spapr_tce_set_window, Linux 6.12). So the default window, which the kernel makes when
// it is needed first, is made now.
Result<void> SpaprContainer::settle_default_window(const HostDevice& newcomer) {
  const DmaWindow* const window = windows_.default_window();
  if (!is_v2() || windows_.list().size() > (window != nullptr ? 1U : 0U)) return {};
  CallFailed what{.object = fmt::format("attach {} to container spapr", newcomer.name)};
  if (window == nullptr) {
    what.result = -ENODEV;
    what.reason =
        "the container has no DMA window, and without one it cannot be known whether this device can share it";
    what.remedy = "create a window first";
    return refusal(std::move(what));
  }
  if (!default_pending_) return {};
  // Unmapping what is not mapped makes it, and changes nothing else; but the kernel refuses that (EPERM) before
  // something was registered.
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
  default_pending_ = false;
  return {};
}

Result<void> SpaprContainer::do_detach(const std::string& device, Fd fd) {
  return container_.detach(device, std::move(fd));
}

Result<void> SpaprContainer::do_close() {
  container_.close();
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

Container::Explanation SpaprContainer::explain_map(int result, IovaRange range, const void* address) const {
  const DmaWindow* const window = windows_.holding(range.first);
  if (failed_at_ == FailedAt::registering) {
    Explanation registering{.reason = {}, .remedy = {}, .call = register_memory.symbol};
    if (result == -EFAULT && registered_.pages_found()) {
      registering.call = "";
      registering.reason = registered_.pages_found_text();
    } else if (result == -EINVAL) {
      registering.reason = "part of this memory is registered by another container of this process, with other bounds";
      registering.remedy = "register the same memory in both, before mapping, with Preregistration::add()";
    }
    return registering;
  }
  if (window == nullptr) return {.reason = "no DMA window is there any more", .remedy = "create one", .call = ""};
  if (result == -ENODEV) return {.reason = windows_lost, .remedy = windows_back};
  if (result == -EINVAL) {
    const std::uint64_t misaligned = window->page_size - 1;
    if (((range.first.value | range.length() | address_of(address)) & misaligned) != 0) {
      Explanation misaligned_for{.reason = fmt::format("the DMA window {} has pages of {}", to_string(window->range),
                                                       size_text(window->page_size)),
                                 .remedy = "align iova, address and length to them"};
      if (failed_at_ == FailedAt::checking) misaligned_for.call = "";
      return misaligned_for;
    }
    const auto page = backing_page_size(kernel(), address);
    if (page && *page < window->page_size) {
      return {.reason = fmt::format("the DMA window {} has pages of {}, and this memory has pages of {}",
                                    to_string(window->range), size_text(window->page_size), size_text(*page)),
              .remedy = "use hugetlb memory (MAP_HUGETLB), or a window with smaller pages"};
    }
  }
  if (result == -ENOMEM && default_pending_ && !window->created) {
    const auto locked = LockedMemory::read(kernel());
    const std::uint64_t table = windows_.table_size(window->range.length(), window->page_size);
    if (locked && !locked->allows(table + range.length())) {
      return {.reason = fmt::format("the table of the default DMA window counts as {} of locked memory beside the {} "
                                    "to be mapped, and that is limited to {}",
                                    size_text(table), size_text(range.length()), size_text(locked->limit.value_or(0))),
              .remedy =
                  "remove that window and create a smaller one, raise RLIMIT_MEMLOCK (\"ulimit -l\"), or run with "
                  "CAP_IPC_LOCK"};
    }
  }
  return {};
}

Container::Facts SpaprContainer::facts() const {
  Facts facts;
  facts.emplace_back("extension", extension_.symbol);
  facts.emplace_back("groups", container_.groups_text());
  std::vector<std::string> windows;
  for (const DmaWindow& window : windows_.list()) {
    windows.push_back(fmt::format("{} with pages of {} ({})", to_string(window.range), size_text(window.page_size),
                                  window.created ? std::string("created") : "default"));
  }
  facts.emplace_back("DMA windows", list_text(windows));
  if (is_v2()) {
    const DmaWindowLimits limits = windows_.limits();
    facts.emplace_back(
        "windows to create",
        limits.levels == 0
            ? "none"
            : fmt::format("pages of {}; {} at a time; tables of {} at most", page_sizes_text(limits.page_sizes),
                          limits.windows, limits.levels == 1 ? "1 level" : fmt::format("{} levels", limits.levels)));
    facts.emplace_back("registered memory", size_text(registered_.size()));
  }
  facts.emplace_back("EEH", eeh_ ? "yes" : "no");
  return facts;
}

}  // namespace postern::spapr
