// SPDX-License-Identifier: Apache-2.0
// MemoryToMap: what backends compute the locked memory from that a layout and its devices need.
#pragma once

#include <cstdint>
#include <postern/host_device.hpp>
#include <postern/locked_memory_need.hpp>
#include <span>

namespace postern {

// Bytes in whole pages of the host, without dma-bufs.
struct MemoryToMap {
  std::uint64_t mapped = 0;    // of all mappings
  std::uint64_t distinct = 0;  // the same, with each byte of this process counted once
};

// Sums and products that stop at 2^64-1.
[[nodiscard]] std::uint64_t capped_sum(std::uint64_t a, std::uint64_t b) noexcept;
[[nodiscard]] std::uint64_t capped_product(std::uint64_t a, std::uint64_t b) noexcept;

// How many IOMMU groups the devices are in, at least 1. A device without a group counts as one.
[[nodiscard]] std::uint64_t group_count(std::span<const HostDevice> devices);

// The need of a backend that counts all mappings of each container. Groups share one if their IOMMUs allow it.
[[nodiscard]] LockedMemoryNeed need_of_each_container(std::string_view backend, LockedMemoryCounter counter,
                                                      const MemoryToMap& memory, std::span<const HostDevice> devices);

}  // namespace postern
