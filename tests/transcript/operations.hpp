// SPDX-License-Identifier: Apache-2.0
// The operations of a transcript. Each chooses arguments, makes one call (or two that belong together), and returns a
// line with the call, its arguments and its result.
#pragma once

#include <span>
#include <string>

#include "transcript/world.hpp"

struct vfio_iommu_type1_dma_map;

namespace postern::transcript {

struct Operation {
  std::string (*run)(World& world);
  unsigned with_type1;  // frequency; also with sPAPR
  unsigned with_iommufd;
  bool (*makes_sense)(const World& world);  // if false, it is rare
};

[[nodiscard]] std::span<const Operation> node_operations();
[[nodiscard]] std::span<const Operation> type1_operations();
[[nodiscard]] std::span<const Operation> spapr_operations();
[[nodiscard]] std::span<const Operation> window_operations();
[[nodiscard]] std::span<const Operation> device_operations();
[[nodiscard]] std::span<const Operation> region_operations();
[[nodiscard]] std::span<const Operation> bar_operations();
[[nodiscard]] std::span<const Operation> irq_operations();
[[nodiscard]] std::span<const Operation> eventfd_operations();
[[nodiscard]] std::span<const Operation> pointer_operations();
[[nodiscard]] std::span<const Operation> cdev_operations();
[[nodiscard]] std::span<const Operation> ioas_operations();
[[nodiscard]] std::span<const Operation> hwpt_operations();
[[nodiscard]] std::span<const Operation> compat_operations();
[[nodiscard]] std::span<const Operation> migration_operations();

// A device opened through its group or its cdev.
[[nodiscard]] Place& any_device(World& world);
[[nodiscard]] bool has_device(const World& world);
// Usually an eventfd; else -1, another number that is no fd, or a file that is no eventfd. The last eventfd is only for
// what takes its signals away (`takes_signals`), others are for what sends them: the simulated kernel takes them later.
struct SomeFd {
  int fd;
  std::string name;
};
[[nodiscard]] SomeFd some_eventfd(World& world, bool takes_signals);
// Usually the correct argsz.
[[nodiscard]] std::uint32_t argsz(World& world, std::size_t good);

// An argument, and the bytes after it, which the kernel reads if argsz is larger: usually zeros.
template <typename Request>
struct Roomy {
  explicit Roomy(World& world) {
    behind[0] = world.random.chance(80) ? 0 : 1;
    if constexpr (
        requires { request.size; } && !requires { request.argsz; }) {
      request.size = argsz(world, sizeof request);  // the first field of every iommufd request
    }
  }
  Request request{};
  std::uint8_t behind[16]{};
};

// An iova, usually near others; at times unaligned, or near the limits of the usable ranges.
[[nodiscard]] std::uint64_t some_iova(World& world);
[[nodiscard]] std::uint64_t some_length(World& world);
[[nodiscard]] std::uint64_t some_memory(World& world);
// For an address in a mapped BAR, usually sets the length to the rest of the BAR, and an iova with few other mappings.
void fit_to_bar(World& world, std::uint64_t address, std::uint64_t& iova, std::uint64_t& length);
// A VFIO_IOMMU_MAP_DMA for any IOMMU with pages of 4 KiB.
void make_some_map(World& world, vfio_iommu_type1_dma_map& request);
// Records a mapping for some_range(). Drops the oldest when there are many.
void remember_mapping(std::vector<Mapping>& mapped, Mapping mapping);
// A mapping, a part of one, more than one, or an arbitrary range.
[[nodiscard]] Mapping some_range(World& world, const std::vector<Mapping>& mapped);
// An initialized buffer of `length` bytes; at times one that cannot be written.
[[nodiscard]] std::uint64_t some_buffer(World& world, std::size_t length);
[[nodiscard]] std::string buffer_digest(std::uint64_t buffer, std::size_t length);

}  // namespace postern::transcript
