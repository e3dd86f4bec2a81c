// SPDX-License-Identifier: Apache-2.0
// The operations of a transcript. Each makes its choices, one call (or two that belong together), and a line that says
// what was called with what, and what came of it.
#pragma once

#include <span>
#include <string>

#include "transcript/world.hpp"

struct vfio_iommu_type1_dma_map;

namespace postern::transcript {

struct Operation {
  std::string (*run)(World& world);
  unsigned with_type1;  // how often; with sPAPR, too
  unsigned with_iommufd;
  bool (*makes_sense)(const World& world);  // else it comes seldom
};

[[nodiscard]] std::span<const Operation> node_operations();
[[nodiscard]] std::span<const Operation> type1_operations();
[[nodiscard]] std::span<const Operation> spapr_operations();
[[nodiscard]] std::span<const Operation> window_operations();
[[nodiscard]] std::span<const Operation> device_operations();
[[nodiscard]] std::span<const Operation> region_operations();
[[nodiscard]] std::span<const Operation> bar_operations();
[[nodiscard]] std::span<const Operation> irq_operations();
[[nodiscard]] std::span<const Operation> pointer_operations();
[[nodiscard]] std::span<const Operation> cdev_operations();
[[nodiscard]] std::span<const Operation> ioas_operations();
[[nodiscard]] std::span<const Operation> hwpt_operations();
[[nodiscard]] std::span<const Operation> compat_operations();
[[nodiscard]] std::span<const Operation> migration_operations();

// A device's fd, opened one way or the other.
[[nodiscard]] Place& any_device(World& world);
[[nodiscard]] bool has_device(const World& world);
// A good argsz most of the time.
[[nodiscard]] std::uint32_t argsz(World& world, std::size_t good);

// An argument, and what stands behind it where its argsz says that it is longer: mostly nothing.
template <typename Request>
struct Roomy {
  explicit Roomy(World& world) {
    behind[0] = world.random.chance(80) ? 0 : 1;
    if constexpr (
        requires { request.size; } && !requires { request.argsz; }) {
      request.size = argsz(world, sizeof request);  // as every request of an iommufd begins
    }
  }
  Request request{};
  std::uint8_t behind[16]{};
};

// An iova: near others, unaligned at times, at the borders of what there is.
[[nodiscard]] std::uint64_t some_iova(World& world);
[[nodiscard]] std::uint64_t some_length(World& world);
[[nodiscard]] std::uint64_t some_memory(World& world);
// For an address in a BAR: mostly the length that is mapped behind it, and an iova where little else is.
void fit_to_bar(World& world, std::uint64_t address, std::uint64_t& iova, std::uint64_t& length);
// A VFIO_IOMMU_MAP_DMA for any IOMMU with pages of 4 KiB.
void make_some_map(World& world, vfio_iommu_type1_dma_map& request);
// Keeps what was mapped for some_range(), and forgets the oldest of many.
void remember_mapping(std::vector<Mapping>& mapped, Mapping mapping);
// What is mapped, a part of it, more than it, or something else.
[[nodiscard]] Mapping some_range(World& world, const std::vector<Mapping>& mapped);
// Where an ioctl may write `length` bytes, filled; at times it may not.
[[nodiscard]] std::uint64_t some_buffer(World& world, std::size_t length);
[[nodiscard]] std::string buffer_digest(std::uint64_t buffer, std::size_t length);

}  // namespace postern::transcript
