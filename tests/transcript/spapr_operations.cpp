// SPDX-License-Identifier: Apache-2.0
// Ioctls of an sPAPR container: mapping, registered memory, information, EEH. Omits calls that crash real kernels.
#include <linux/vfio.h>

#include <algorithm>

#include "kernel/flex_array.hpp"
#include "transcript/operations.hpp"
#include "transcript/text.hpp"
#include "transcript/windows.hpp"

namespace postern::transcript {
namespace {

constexpr std::uint64_t page = 4096;

World::Windows& windows_of(World& world, const Place& container) {
  return world.windows[world.index_of(container, world.containers)];
}

std::string get_info(World& world) {
  const Place& container = world.usable_one(world.containers);
  alignas(8) std::byte answer[64];
  std::fill(std::begin(answer), std::end(answer), std::byte{0xee});
  auto& info = *reinterpret_cast<vfio_iommu_spapr_tce_info*>(answer);
  info.argsz = world.random.pick({0U, 8U, 15U, 16U, 18U, 31U, 32U, 32U, 32U, 40U, 64U});
  const std::uint32_t given = info.argsz;
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_SPAPR_TCE_GET_INFO, answer);
  return fmt::format("{} GET_INFO argsz {} -> {}, flags {:#x} window {:#x}+{:#x} pages {:#x} windows {} levels {}, {}",
                     container.name, given, outcome(result), info.flags, info.dma32_window_start,
                     info.dma32_window_size, info.ddw.pgsizes, info.ddw.max_dynamic_windows_supported, info.ddw.levels,
                     digest(answer));
}

std::string enable(World& world) {
  const Place& container = world.usable_one(world.containers);
  const bool enables = world.random.chance(80);
  const int result = world.kernel.ioctl(container.fd, enables ? VFIO_IOMMU_ENABLE : VFIO_IOMMU_DISABLE, nullptr);
  return fmt::format("{} {} -> {}", container.name, enables ? "ENABLE" : "DISABLE", outcome(result));
}

// Memory at few addresses with few sizes, so that the same or adjacent memory is chosen often.
Mapping some_piece(World& world) {
  constexpr std::uint64_t grid = 64 * page;
  const std::uint64_t kind = world.random.below(100);
  if (kind < 70) return {Memory::start + grid * world.random.below(24), grid * (1 + world.random.below(3))};
  Mapping piece{some_memory(world), page * (1 + world.random.below(200))};
  if (kind < 96) return piece;
  // Zero bytes (a warning, and ENOMEM), part of a page, and lengths too large for any array of pages. Omits lengths
  // between that and the size of memory, since the kernel would try to allocate the array.
  piece.length = world.random.pick<std::uint64_t>(
      {0, 1, 2048, page + 1, std::uint64_t{1} << 52, std::uint64_t{1} << 62, 0 - page, 0 - page * 17});
  return piece;
}

std::string register_memory(World& world) {
  const Place& container = world.usable_one(world.containers);
  Roomy<vfio_iommu_spapr_register_memory> room_for(world);
  auto& request = room_for.request;
  const Mapping piece = some_piece(world);
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(3) ? 1 : 0;
  request.vaddr = piece.iova;
  request.size = piece.length;
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_SPAPR_REGISTER_MEMORY, &request);
  if (result == 0) world.registered.push_back(piece);
  return fmt::format("{} REGISTER_MEMORY argsz {} flags {} {} size {:#x} -> {}", container.name, request.argsz,
                     request.flags, address(request.vaddr), request.size, outcome(result));
}

std::string unregister_memory(World& world) {
  const Place& container = world.usable_one(world.containers);
  Roomy<vfio_iommu_spapr_register_memory> room_for(world);
  auto& request = room_for.request;
  Mapping piece = some_piece(world);
  if (!world.registered.empty() && world.random.chance(80)) {
    piece = world.registered[world.random.below(world.registered.size())];
    if (world.random.chance(8)) piece.length += page;
  }
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(3) ? 1 : 0;
  request.vaddr = piece.iova;
  request.size = piece.length;
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, &request);
  return fmt::format("{} UNREGISTER_MEMORY argsz {} flags {} {} size {:#x} -> {}", container.name, request.argsz,
                     request.flags, address(request.vaddr), request.size, outcome(result));
}

// An address in registered memory, at times elsewhere or past its end.
std::uint64_t memory_to_map(World& world) {
  if (world.registered.empty() || world.random.chance(15)) return some_memory(world);
  const Mapping& piece = world.registered[world.random.below(world.registered.size())];
  const std::uint64_t offset = world.random.below(piece.length / page + 1) * page;
  return piece.iova + (world.random.chance(50) ? 0 : offset);
}

// On a map past a window's end, version 2 on pseries follows a wild pointer (tce_iommu_unuse_page_v2), and powernv
// writes past its table (pnv_tce), in both versions (Linux 6.12). Version 1 on pseries asks the hypervisor, which
// refuses.
bool may_map_past_end(const World& world, const World::Windows& windows) { return windows.is_v1 && !world.is_powernv; }

// Limits the length to the window unless it may pass the end; never far past it, since the kernel goes page by page.
std::uint64_t careful_length(World& world, const World::Windows& windows, Mapping range, bool may_pass) {
  const std::uint64_t within = length_within(world, windows, range);
  if (range.length <= within) return range.length;
  return may_pass ? std::min(range.length, within + page * 16) : within;
}

std::string map(World& world) {
  const Place& container = world.usable_one(world.containers);
  const World::Windows& windows = windows_of(world, container);
  Roomy<vfio_iommu_type1_dma_map> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(92) ? 1 + static_cast<std::uint32_t>(world.random.below(3))
                                          : static_cast<std::uint32_t>(world.random.below(16));
  request.vaddr = memory_to_map(world);
  auto& mapped = world.mappings[world.index_of(container, world.containers)];
  request.iova =
      !mapped.empty() && world.random.chance(25) ? some_range(world, mapped).iova : some_window_iova(world, windows);
  request.size = careful_length(world, windows, {request.iova, some_length(world)}, may_map_past_end(world, windows));
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_MAP_DMA, &request);
  if (result == 0) remember_mapping(mapped, {request.iova, request.size});
  return fmt::format("{} MAP_DMA argsz {} flags {:#x} {} at {:#x} size {:#x} -> {}", container.name, request.argsz,
                     request.flags, address(request.vaddr), request.iova, request.size, outcome(result));
}

std::string unmap(World& world) {
  const Place& container = world.usable_one(world.containers);
  const World::Windows& windows = windows_of(world, container);
  FlexArray<vfio_iommu_type1_dma_unmap, vfio_bitmap> room_for;
  auto& request = room_for.head();
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(5) ? static_cast<std::uint32_t>(world.random.below(8)) : 0;
  Mapping range = some_range(world, world.mappings[world.index_of(container, world.containers)]);
  if (world.random.chance(25)) range.iova = some_window_iova(world, windows);
  request.iova = range.iova;
  // powernv would read and write past its table, as with a map.
  const std::uint64_t within = length_within(world, windows, range);
  request.size = careful_length(world, windows, range, !world.is_powernv);
  const std::uint64_t given = request.size;
  const int result = world.kernel.ioctl(container.fd, VFIO_IOMMU_UNMAP_DMA, &request);
  return fmt::format("{} UNMAP_DMA argsz {} flags {:#x} at {:#x} size {:#x}{} -> {}, size {:#x}", container.name,
                     request.argsz, request.flags, request.iova, given,
                     given > within ? " (past the window's end)" : "", outcome(result), request.size);
}

// Omits resets, which take seconds each.
std::string eeh(World& world) {
  const Place& container = world.usable_one(world.containers);
  Roomy<vfio_eeh_pe_op> room_for(world);
  auto& request = room_for.request;
  request.argsz = argsz(world, sizeof request);
  request.flags = world.random.chance(5) ? 1 : 0;
  request.op = world.random.pick<std::uint32_t>({VFIO_EEH_PE_DISABLE, VFIO_EEH_PE_ENABLE, VFIO_EEH_PE_UNFREEZE_IO,
                                                 VFIO_EEH_PE_UNFREEZE_DMA, VFIO_EEH_PE_GET_STATE, VFIO_EEH_PE_GET_STATE,
                                                 VFIO_EEH_PE_CONFIGURE, VFIO_EEH_PE_INJECT_ERR, 10, 77});
  request.err.type = static_cast<std::uint32_t>(world.random.below(3));
  request.err.func = static_cast<std::uint32_t>(world.random.below(22));
  const int result = world.kernel.ioctl(container.fd, VFIO_EEH_PE_OP, &request);
  return fmt::format("{} EEH_PE_OP argsz {} flags {} op {} error {} {} -> {}", container.name, request.argsz,
                     request.flags, request.op, request.err.type, request.err.func, outcome(result));
}

bool has_container(const World& world) { return World::has_usable(world.containers); }
bool has_v1(const World& world) { return world.backend == Backend::spaprv1 && has_container(world); }
bool has_v2(const World& world) { return world.backend == Backend::spapr && has_container(world); }

constexpr Operation operations[] = {
    {get_info, 12, 0, has_container},   {enable, 24, 0, has_v1},      {register_memory, 60, 0, has_v2},
    {unregister_memory, 16, 0, has_v2}, {map, 130, 0, has_container}, {unmap, 60, 0, has_container},
    {eeh, 16, 0, has_container},
};

}  // namespace

std::span<const Operation> spapr_operations() { return operations; }

}  // namespace postern::transcript
