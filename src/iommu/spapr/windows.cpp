// SPDX-License-Identifier: Apache-2.0
// SpaprContainer: DMA windows and preregistration, by system calls.
#include <fmt/format.h>

#include "base/on_throw.hpp"
#include "base/words.hpp"
#include "host/requirements.hpp"
#include "iommu/address_space.hpp"
#include "iommu/spapr/container.hpp"
#include "kernel/spapr.hpp"

namespace postern::spapr {

Result<void> SpaprContainer::require_device(std::string object) const {
  if (has_groups()) return {};
  return refusal({.result = -ENODEV,
                  .kind = ErrorKind::invalid_argument,
                  .object = std::move(object),
                  .reason = "no device is attached, so there is no IOMMU",
                  .remedy = RemedyCode::attach_device_first});
}

Result<DmaWindow> SpaprContainer::create_in_kernel(vfio_iommu_spapr_tce_create create) {
  const vfio_iommu_spapr_tce_create wanted = create;
  windows_.reserve_one();
  const std::uint64_t page = std::uint64_t{1} << wanted.page_shift;
  CallFailed what{.object =
                      fmt::format("DMA window of {} with pages of {}", size_text(wanted.window_size), size_text(page))};
  const int result = tce_create(kernel(), fd().get(), create);
  // Before it creates another window, the kernel creates the default one (tce_iommu_create_default_window).
  const DmaWindow* const first = default_pending_ ? windows_.default_window() : nullptr;
  if (result >= 0) default_pending_ = false;
  what.result = result;
  if (result >= 0) {
    if (const auto* made = windows_.add(wanted, {create.start_addr})) return *made;
    (void)remove_in_kernel({create.start_addr});
    what.result = -EPROTO;
    what.reason = fmt::format("the kernel reports it at {:#x}, where it cannot be", create.start_addr);
    return refusal(std::move(what));
  } else if (result == -ENOMEM) {
    what.kind = ErrorKind::locked_memory;
    const std::uint64_t own = windows_.table_size(wanted.window_size, page);
    std::uint64_t both = own;
    what.reason = fmt::format("its table counts as {} of locked memory", size_text(own));
    if (first != nullptr) {
      const std::uint64_t table = windows_.table_size(first->range.length(), first->page_size);
      what.reason += fmt::format(", and that of the default window, which is created first, as {}", size_text(table));
      both += table;
    }
    what.remedy = first != nullptr ? RemedyCode::remove_default_window : RemedyCode::create_smaller_window;
    what.remedy.add(raise_limit(both));
  } else if (result == -ENODEV) {
    what.kind = ErrorKind::unavailable;
    what.reason = windows_lost;
    what.remedy = RemedyCode::boot_for_dma_windows;
  } else if (result == -EPERM) {
    what.reason = "the platform refused it";
    what.remedy = RemedyCode::see_kernel_log;
  }
  return call_failure(tce_create.symbol, std::move(what));
}

int SpaprContainer::remove_in_kernel(Iova start) {
  vfio_iommu_spapr_tce_remove remove{.argsz = sizeof remove, .flags = 0, .start_addr = start.value};
  return tce_remove(kernel(), fd().get(), remove);
}

Result<DmaWindow> SpaprContainer::create(const DmaWindowRequest& request) {
  POSTERN_TRY(require_device("DMA window of container spapr"));
  auto plan = POSTERN_TRY(windows_.plan(request));
  const DmaWindow made = POSTERN_TRY(create_in_kernel(plan));
  const OnThrow undo([&] {
    (void)remove_in_kernel(made.range.first);
    windows_.remove(made.range.first);
  });
  space().set_limits(window_limits());
  return made;
}

Result<void> SpaprContainer::remove(Iova start) {
  POSTERN_TRY(require_device("DMA window of container spapr"));
  CallFailed what{.result = -ENOENT, .object = fmt::format("DMA window at {}", to_string(start))};
  // The kernel would accept any address within the window (tce_iommu_remove_window), which makes mistakes too easy.
  const DmaWindow* const window = windows_.starting_at(start);
  if (window == nullptr) {
    what.reason = "no window starts there";
    return refusal(std::move(what));
  }
  std::optional<IovaRange> mapped;
  space().mappings().for_each([&](const MappingRecord& mapping) {
    if (!mapped && window->range.contains(mapping.range)) mapped = mapping.range;
  });
  if (mapped) {
    what.result = -EBUSY;
    what.reason = fmt::format("{} is mapped in it", to_string(*mapped));
    what.remedy = RemedyCode::unmap_first;
    return refusal(std::move(what));
  }
  ContainerLimits limits = window_limits(start);
  what.result = remove_in_kernel(start);
  if (what.result < 0) return call_failure(tce_remove.symbol, std::move(what));
  windows_.remove(start);
  space().set_limits(std::move(limits));
  return {};
}

Result<DmaWindow> SpaprContainer::make_room(std::uint64_t bytes, std::uint64_t page_of_memory) {
  for (const DmaWindow& window : windows_.list()) {
    if (window.range.length() >= bytes && window.page_size <= page_of_memory) return window;
  }
  return create(windows_.request_for(bytes, page_of_memory));
}

Result<void> SpaprContainer::add(std::span<std::byte> memory) {
  POSTERN_TRY(require_device("memory of container spapr"));
  const RegisteredMemory::Range range{reinterpret_cast<std::uintptr_t>(memory.data()), memory.size()};
  const std::uint64_t page = windows_.host_page();
  CallFailed what{.result = -EINVAL,
                  .object = fmt::format("memory at {}+{}", fmt::ptr(memory.data()), size_text(memory.size()))};
  // A length of zero would make the kernel warn and return ENOMEM (mm_iommu_do_alloc, Linux 6.12).
  if (memory.empty() || ((range.address | range.length) & (page - 1)) != 0) {
    what.reason =
        memory.empty() ? "the length is zero" : fmt::format("not a multiple of the page size, {}", size_text(page));
    return refusal(std::move(what));
  }
  if (range.address + range.length < range.address) {
    what.result = -EOVERFLOW;
    what.reason = "it runs past the last address, 2^64-1";
    return refusal(std::move(what));
  }
  if (registered_.overlaps(range)) {
    what.result = -EEXIST;
    what.reason = "part of it is already registered, or was mapped without being registered first";
    what.remedy = RemedyCode::register_before_mapping;
    return refusal(std::move(what));
  }
  what.result = registered_.keep(range);
  if (what.result >= 0) return {};
  if (what.result == -ENOMEM) explain_locked_memory(what, kernel(), range.length, locked_memory_counter());
  if (what.result == -EFAULT && registered_.pages_found()) {
    what.reason = registered_.pages_found_text();
    return refusal(std::move(what));
  }
  return call_failure(register_memory.symbol, std::move(what));
}

Result<void> SpaprContainer::remove(std::span<std::byte> memory) {
  POSTERN_TRY(require_device("memory of container spapr"));
  const RegisteredMemory::Range range{reinterpret_cast<std::uintptr_t>(memory.data()), memory.size()};
  CallFailed what{.result = -ENOENT,
                  .object = fmt::format("memory at {}+{}", fmt::ptr(memory.data()), size_text(memory.size()))};
  if (!registered_.is_kept_as(range)) {
    what.reason = "no registration has exactly these bounds";
    return refusal(std::move(what));
  }
  std::optional<IovaRange> mapped;
  space().mappings().for_each([&](const MappingRecord& mapping) {
    const auto first = reinterpret_cast<std::uintptr_t>(mapping.address);
    if (!mapped && first < range.address + range.length && range.address < first + mapping.range.length()) {
      mapped = mapping.range;
    }
  });
  if (mapped) {
    what.result = -EBUSY;
    what.reason = fmt::format("it is mapped at {}", to_string(*mapped));
    what.remedy = RemedyCode::unmap_first;
    return refusal(std::move(what));
  }
  what.result = registered_.drop(range);
  if (what.result < 0) return call_failure(unregister_memory.symbol, std::move(what));
  return {};
}

}  // namespace postern::spapr
