// SPDX-License-Identifier: Apache-2.0
// Creating and removing DMA windows of sPAPR, version 2. Omits calls that crash real kernels or use up their resources.
#include <linux/vfio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>

#include "transcript/operations.hpp"
#include "transcript/text.hpp"
#include "transcript/windows.hpp"

namespace postern::transcript {
namespace {

using Dynamic = World::Windows::Dynamic;

// pnv_pci_ioda2_table_alloc_pages refuses a table that spans 55 bits or more only after its size was counted as locked
// memory, and it stays counted (tce_iommu_create_table, Linux 6.12).
bool is_too_deep(const vfio_iommu_spapr_tce_create& request) {
  if (request.levels == 0 || request.levels > 5) return false;  // refused before anything is counted
  const auto entries_shift = static_cast<unsigned>(std::countr_zero(request.window_size)) - request.page_shift;
  const auto page_shift = static_cast<unsigned>(std::countr_zero(static_cast<unsigned long>(::sysconf(_SC_PAGESIZE))));
  const unsigned level_shift = std::max((entries_shift + request.levels - 1) / request.levels + 3, page_shift);
  return (level_shift - 3) * request.levels + request.page_shift >= 55;
}

// spapr_tce_create_table: the hypervisor refuses a second dynamic window, and the kernel then puts the host bridge on
// failed_ddw_pdn_list, which has no windows until the next boot (Linux 6.12). Other cases never reach the hypervisor:
// next to the default window there is no free slot, and a window in the second slot is noticed.
bool breaks_bridge(const World::Windows& windows) { return windows.lost_default && windows.dynamic == Dynamic::first; }

vfio_iommu_spapr_tce_create some_window(World& world) {
  vfio_iommu_spapr_tce_create request{};
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(4) ? 1 : 0;
  request.page_shift = world.random.chance(88)
                           ? world.random.pick({12U, 12U, 12U, 12U, 16U, 16U, 21U, world.is_powernv ? 30U : 24U})
                           : world.random.pick({0U, 11U, 13U, 25U, 31U, 40U, 63U, 64U});
  // Few entries, since the kernel clears them one by one.
  request.window_size = std::uint64_t{1} << (std::min(request.page_shift, 40U) + world.random.below(17));
  if (world.random.chance(15)) {
    request.page_shift = 12;
    request.window_size = default_window(world).length;
  }
  const std::uint32_t levels = world.random.pick({1U, 1U, 1U, 1U, 2U, 3U, 4U, 5U, 0U, 6U});
  request.levels = world.is_powernv ? levels : std::min(levels, 1U);  // pseries has 1; the kernel counts more, too
  if (world.random.chance(6)) {
    const std::uint64_t odd = world.random.pick<std::uint64_t>({3, 5, 7, 24}) << request.page_shift % 32;
    // On pseries, other invalid sizes are counted as locked memory, as are levels.
    request.window_size = world.is_powernv ? world.random.pick<std::uint64_t>({0, odd, ~std::uint64_t{0}}) : 0;
  }
  return request;
}

std::string create(World& world) {
  const Place& container = world.usable_one(world.containers);
  World::Windows& windows = world.windows[world.index_of(container, world.containers)];
  Roomy<vfio_iommu_spapr_tce_create> room_for(world);
  auto& request = room_for.request;
  request = some_window(world);
  if (world.is_powernv ? is_too_deep(request) : breaks_bridge(windows)) return container.name + " has windows enough";
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_SPAPR_TCE_CREATE, &request);
  if (result == 0) {
    windows.created.push_back(made_window(world, request));
    if (request.start_addr != 0) {
      windows.dynamic = windows.lost_default ? Dynamic::first : Dynamic::second;
    } else {
      windows.lost_default = false;
    }
  }
  return fmt::format("{} TCE_CREATE argsz {} flags {} shift {} size {:#x} levels {} -> {}, at {:#x}", container.name,
                     request.argsz, request.flags, request.page_shift, request.window_size, request.levels,
                     outcome(result), request.start_addr);
}

std::string remove(World& world) {
  const Place& container = world.usable_one(world.containers);
  World::Windows& windows = world.windows[world.index_of(container, world.containers)];
  Roomy<vfio_iommu_spapr_tce_remove> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(4) ? 1 : 0;
  const std::uint64_t kind = world.random.below(100);
  if (kind < 60 && !windows.created.empty()) {
    request.start_addr = windows.created[world.random.below(windows.created.size())].start;
  } else if (kind < 92) {
    request.start_addr = world.random.pick<std::uint64_t>({0, 0, std::uint64_t{1} << 59});
  } else {
    request.start_addr = some_window_iova(world, windows);
  }
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_SPAPR_TCE_REMOVE, &request);
  if (result == 0) {
    const bool is_dynamic = request.start_addr >= dynamic_start;
    std::erase_if(windows.created, [&](const Window& window) { return (window.start >= dynamic_start) == is_dynamic; });
    if (is_dynamic) {
      windows.dynamic = Dynamic::none;
    } else {
      windows.lost_default = true;
    }
  }
  return fmt::format("{} TCE_REMOVE argsz {} flags {} at {:#x} -> {}", container.name, request.argsz, request.flags,
                     request.start_addr, outcome(result));
}

bool has_container(const World& world) {
  return world.backend == Backend::spapr && World::has_usable(world.containers);
}

constexpr Operation operations[] = {
    {create, 36, 0, has_container},
    {remove, 22, 0, has_container},
};

}  // namespace

std::span<const Operation> window_operations() { return operations; }

}  // namespace postern::transcript
