// SPDX-License-Identifier: Apache-2.0
// LockedMemoryNeed: adds up a layout, and compares what a backend makes of it with the limit.
#include <postern/locked_memory_need.hpp>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <postern/format.hpp>
#include <set>

#include "iommu/backend_ops.hpp"

namespace postern {
namespace {

constexpr std::uint64_t most = ~std::uint64_t{0};

std::uint64_t in_whole_pages(std::uint64_t bytes) {
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return capped_product(bytes / page + (bytes % page != 0 ? 1 : 0), page);
}

MemoryToMap memory_of(std::span<const Mapping> layout) {
  MemoryToMap memory;
  std::map<std::uint64_t, std::uint64_t> ends;  // of memory of this process, by its first byte
  for (const Mapping& mapping : layout) {
    if (mapping.memory.kind() == Memory::Kind::dma_buf) continue;
    const std::uint64_t length = in_whole_pages(mapping.memory.length());
    memory.mapped = capped_sum(memory.mapped, length);
    if (mapping.memory.kind() == Memory::Kind::address) {
      const auto first = reinterpret_cast<std::uintptr_t>(mapping.memory.address());
      std::uint64_t& end = ends[first];
      end = std::max(end, capped_sum(first, length));
    } else {  // each mapping of a file has memory of its own in this process
      memory.distinct = capped_sum(memory.distinct, length);
    }
  }
  std::uint64_t counted = 0;  // up to this address
  for (const auto& [first, end] : ends) {
    if (end <= counted) continue;
    memory.distinct = capped_sum(memory.distinct, end - std::max(first, counted));
    counted = end;
  }
  return memory;
}

}  // namespace

std::uint64_t capped_sum(std::uint64_t a, std::uint64_t b) noexcept { return a > most - b ? most : a + b; }

std::uint64_t capped_product(std::uint64_t a, std::uint64_t b) noexcept {
  return b != 0 && a > most / b ? most : a * b;
}

std::uint64_t group_count(std::span<const HostDevice> devices) {
  std::set<GroupId> groups;
  std::uint64_t without = 0;
  for (const HostDevice& device : devices) {
    if (device.iommu_group) {
      groups.insert(*device.iommu_group);
    } else {
      ++without;
    }
  }
  return std::max<std::uint64_t>(groups.size() + without, 1);
}

LockedMemoryNeed need_of_each_container(std::string_view backend, LockedMemoryCounter counter,
                                        const MemoryToMap& memory, std::span<const HostDevice> devices) {
  return {.backend = backend,
          .counter = counter,
          .what = fmt::format("{} to be mapped", size_text(memory.mapped)),
          .each = memory.mapped,
          .containers_at_most = group_count(devices)};
}

std::uint64_t LockedMemoryNeed::at_least() const noexcept {
  return capped_sum(once, capped_product(each, containers_at_least));
}

std::uint64_t LockedMemoryNeed::at_most() const noexcept {
  return capped_sum(once, capped_product(each, containers_at_most));
}

LockedMemoryVerdict LockedMemoryNeed::judge(const LockedMemory& memory) const noexcept {
  if (memory.exempt || !memory.limit) return LockedMemoryVerdict::allowed;
  if (!memory.allows(at_least(), counter)) return LockedMemoryVerdict::refused;
  const bool knows_use = counter == LockedMemoryCounter::process;
  return knows_use && memory.allows(at_most(), counter) ? LockedMemoryVerdict::allowed : LockedMemoryVerdict::uncertain;
}

Result<std::vector<LockedMemoryNeed>> locked_memory_needed(Kernel& kernel, const Backend& backend, std::uint64_t bytes,
                                                           std::span<const HostDevice> devices) {
  const std::uint64_t whole = in_whole_pages(bytes);
  return backend.ops->locked_memory(kernel, {.mapped = whole, .distinct = whole}, devices);
}

Result<std::vector<LockedMemoryNeed>> locked_memory_needed(Kernel& kernel, const Backend& backend,
                                                           std::span<const Mapping> layout,
                                                           std::span<const HostDevice> devices) {
  return backend.ops->locked_memory(kernel, memory_of(layout), devices);
}

}  // namespace postern
